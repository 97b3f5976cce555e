"""The alarms after a row: columns, who asks for a pause or a stop, and what a resumed run says."""

from typing import Any

import numpy as np
import pytest

from dynalign.actors.coordinator.alarm_watch import AlarmWatch
from dynalign.benchmarks.simulated_runs import FAULTS, Shape, simulate
from dynalign.configs.sections.alarms import AlarmSettings, AlarmsSettings

ONSET = 40
[INJECTION] = [fault for fault in FAULTS if fault.alarm == "injection"]
ROWS = simulate(np.random.default_rng(4), Shape(steps=60), INJECTION, ONSET)


def watched(action: str, rows: list[dict[str, Any]]) -> tuple[AlarmWatch, list[str]]:
    """A watch that has seen the rows, and the names that asked for something, in order."""
    settings = AlarmsSettings(injection=AlarmSettings.model_validate({"action": action, "threshold": 6.0}))
    watch = AlarmWatch(settings, [])
    asked = []
    for row in rows:
        watch.look(row)
        if (alarm := watch.asked()) is not None:
            asked.append(f"{alarm.action} {alarm.name}")
    return watch, asked


def test_a_row_has_a_column_per_alarm_and_the_one_that_fires_is_1() -> None:
    watch, asked = watched("warn", ROWS[:-1])
    columns = watch.look(ROWS[-1])
    assert set(columns) == {f"alarm_{name}" for name in AlarmsSettings.model_fields}
    assert columns["alarm_injection"] == 1
    assert columns["alarm_unparsed_verdicts"] == 0
    assert asked == []
    [alarm] = watch.firing
    assert alarm.name == "injection"
    assert ONSET - 2 <= alarm.onset_step <= alarm.fired_step <= ONSET + 10


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_an_alarm_that_begins_to_fire_asks_once(action: str) -> None:
    assert watched(action, ROWS)[1] == [f"{action} injection"]


def test_a_resumed_run_goes_on_as_one_that_was_never_interrupted() -> None:
    whole, _ = watched("stop", ROWS)
    settings = AlarmsSettings(injection=AlarmSettings(action="stop", threshold=6.0))
    resumed = AlarmWatch(settings, ROWS[:-1])
    resumed.look(ROWS[-1])
    assert resumed.firing == whole.firing
    assert resumed.asked() is None


def test_rows_that_a_return_to_a_checkpoint_has_undone_do_not_count() -> None:
    settings = AlarmsSettings()
    watch = AlarmWatch(settings, ROWS)
    watch.look(ROWS[ONSET - 10])
    assert watch.firing == ()


def test_of_two_alarms_at_once_a_stop_comes_before_a_pause() -> None:
    pause = AlarmSettings(action="pause", threshold=0.01)
    stop = AlarmSettings(action="stop", threshold=0.01)
    at_once = AlarmWatch(AlarmsSettings(unparsed_verdicts=pause, injection=stop), [])
    at_once.look({"step": 1, "unreadable_fraction": 0.9, "injection_fraction": 0.9})
    alarm = at_once.asked()
    assert alarm is not None
    assert alarm.name == "injection"
