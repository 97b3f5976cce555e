"""Every alarm on simulated runs: silent where nothing is wrong, soon where something is, pure, and in words
that say what to do.

The rates over many runs are measured by `make bench ONLY=alarms` and stand in docs/alarms.md.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from dynalign.benchmarks.alarms import delays, false_alarms, soon_fraction
from dynalign.benchmarks.simulated_runs import FAULTS, Fault, Shape, simulate
from dynalign.configs.sections.alarms import AlarmSettings, AlarmsSettings
from dynalign.evaluation.alarms.alarms import ALARMS, AlarmReading, alarm_columns, readings, statistics
from dynalign.evaluation.alarms.history import FIRST_ROWS, NEWEST_ROWS, History, bounded
from dynalign.run_folder.metric_names import METRIC_NAMES

Rows = Sequence[Mapping[str, Any]]
SETTINGS = AlarmsSettings()


def by_name(rows: Rows, settings: AlarmsSettings = SETTINGS) -> dict[str, AlarmReading]:
    return {reading.name: reading for reading in readings(rows, settings)}


@cache
def faulty(name: str) -> tuple[Mapping[str, Any], ...]:
    """A run whose fault begins at step 70 and lasts until the end, step 90."""
    fault = next(fault for fault in FAULTS if fault.alarm == name)
    return tuple(simulate(np.random.default_rng(3), Shape(steps=90), fault, 70))


def test_every_alarm_has_a_setting_a_metric_and_a_planted_fault() -> None:
    names = [alarm.name for alarm in ALARMS]
    assert names == list(AlarmsSettings.model_fields)
    assert {f"alarm_{name}" for name in names} == {
        metric for metric in METRIC_NAMES if metric.startswith("alarm_")
    }
    assert {fault.alarm for fault in FAULTS} == set(names)


def test_in_clean_runs_no_alarm_fires_more_than_once_in_a_thousand_steps() -> None:
    found = false_alarms(range(4), (Shape(steps=250, prompts=4), Shape(steps=250)))
    assert found.steps == 2000
    assert max(found.times.values()) <= 2, found
    assert sum(found.times.values()) <= 4, found


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_a_planted_fault_is_found_within_ten_steps_in_nine_of_ten_runs(fault: Fault) -> None:
    assert soon_fraction(delays(fault, range(10))) >= 0.9


@pytest.mark.parametrize("alarm", ALARMS, ids=[alarm.name for alarm in ALARMS])
def test_a_fault_is_told_with_its_onset_its_size_and_what_to_do(alarm: Any) -> None:
    reading = by_name(faulty(alarm.name))[alarm.name]
    assert reading.fires
    assert reading.statistic is not None
    assert reading.onset_step is not None
    assert reading.fired_step is not None
    assert 66 <= reading.onset_step <= 75
    assert reading.onset_step <= reading.fired_step <= 80
    assert re.search(r"\d since step \d+ against -?\d.*standard errors \(threshold \d+\): ", reading.words)
    assert reading.words.endswith(alarm.remedy)
    assert "\n" not in reading.words


def test_an_alarm_begins_with_one_row_and_goes_on_with_the_next() -> None:
    rows = faulty("length_gaming")
    fired = by_name(rows)["length_gaming"].fired_step
    assert fired is not None
    before, at, after = (by_name(rows[:count])["length_gaming"] for count in (fired - 1, fired, fired + 1))
    assert (before.fires, before.words, before.fired_step) == (False, "", None)
    assert (at.begins, at.fired_step) == (True, fired)
    assert (after.fires, after.begins, after.fired_step) == (True, False, fired)


def test_it_falls_silent_within_its_window_once_the_fault_is_gone() -> None:
    clean = simulate(np.random.default_rng(5), Shape(steps=140))
    short = [*clean[:70], *faulty("injection")[70:80], *clean[80:]]
    assert by_name(short[:80])["injection"].fires
    assert not by_name(short[:105])["injection"].fires


@pytest.mark.parametrize("alarm", ALARMS, ids=[alarm.name for alarm in ALARMS])
def test_what_an_alarm_says_of_a_step_does_not_change_with_later_steps(alarm: Any) -> None:
    rows = faulty(alarm.name)
    whole_T = statistics(alarm, History(rows))
    for until in (40, 60, 75, 85):
        assert statistics(alarm, History(rows[:until])) == pytest.approx(whole_T[:until], nan_ok=True)


def test_without_its_metric_an_alarm_is_silent_and_its_column_is_null() -> None:
    rows = [{"step": step, "reward_mean": 2.0 + step % 3} for step in range(60)]
    found = alarm_columns(readings(rows, SETTINGS))
    assert found.pop("alarm_reward_collapse") == 0
    assert set(found.values()) == {None}


def test_a_run_that_has_just_begun_says_nothing() -> None:
    row = dict.fromkeys(METRIC_NAMES) | {"step": 0, "heldout_prompted_reward_mean": 1.5}
    assert set(alarm_columns(readings([row], SETTINGS)).values()) == {None}


def test_threshold_and_action_are_the_settings() -> None:
    deaf = AlarmsSettings(injection=AlarmSettings(action="stop", threshold=1000.0))
    reading = by_name(faulty("injection"), deaf)["injection"]
    assert (reading.fires, reading.threshold, reading.action) == (False, 1000.0, "stop")


def test_constant_metrics_of_a_judge_without_noise_fire_nothing() -> None:
    row = faulty("injection")[0] | {"injection_fraction": 0.0}
    rows = [{**row, "step": step} for step in range(1, 120)]
    assert not any(reading.fires for reading in readings(rows, SETTINGS))


def test_a_judge_that_pays_for_length_from_the_first_step_on_is_found_too() -> None:
    clean = simulate(np.random.default_rng(8), Shape(steps=60))
    rows = [{**row, "score_length_correlation_within": 0.9} for row in clean]
    assert by_name(rows)["length_gaming"].fires


def test_the_history_is_bounded_and_keeps_the_reference() -> None:
    rows = [{"step": step} for step in range(2000)]
    kept = bounded(rows)
    assert len(kept) == FIRST_ROWS + NEWEST_ROWS
    assert kept[0] == rows[0]
    assert kept[-1] == rows[-1]
    assert bounded(kept) == kept
    assert bounded([*kept, {"step": 2000}])[-1] == {"step": 2000}
    assert bounded(rows[:300]) == rows[:300]
