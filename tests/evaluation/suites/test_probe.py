"""The capability probe: its change with its standard error, and what the alarm makes of it."""

import math
import pickle
from collections import Counter
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.configs.sections.capability import CapabilitySettings
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.evaluation.alarms.alarms import readings
from dynalign.evaluation.suites.probe import CapabilityChange, OpenedProbe, capability_change, drawn_items


def scores(right: int, items: int = 40) -> dict[str, float]:
    return {f"arithmetic/{each}": float(each < right) for each in range(items)}


def test_the_change_is_over_the_items_of_both_with_the_error_of_their_differences() -> None:
    found = capability_change(scores(30) | {"arithmetic/99": 1.0}, scores(20))
    assert found is not None
    assert found.items == 40
    assert found.change == -0.25
    assert found.standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 39))
    assert found.columns() == {"capability_change": -0.25, "capability_change_se": found.standard_error}


def test_no_change_at_all_has_the_error_of_one_item() -> None:
    assert capability_change(scores(30), scores(30)) == CapabilityChange(0.0, 1 / 40, 40)
    assert capability_change(scores(9, 29), scores(3, 29)) is None


def test_a_loss_fires_the_alarm_and_noise_does_not() -> None:
    def fires(right: int) -> bool:
        found = capability_change(scores(30), scores(right))
        assert found is not None
        rows = [{"step": 1} | found.columns()]
        (reading,) = (each for each in readings(rows, AlarmsSettings()) if each.name == "capability_loss")
        return reading.fires

    assert fires(10)
    assert not fires(29)


def asked(probe: OpenedProbe, text: str) -> list[Answers | None]:
    """The first label of every option, and `text` everywhere else."""

    def answer(question: Question) -> Answer:
        logprobs = tuple(-float(place) for place in range(len(question.choices)))
        return Answer("", "length", logprobs) if logprobs else Answer(text, "stop")

    return [Answers((answer(each),), "policy", 9, 1) for each in probe.questions]


def test_the_items_are_drawn_the_same_way_every_time_from_all_tasks_and_graded_by_the_harness() -> None:
    settings = CapabilitySettings(items=48, max_tokens=40)
    drawn = drawn_items(settings)
    assert drawn is not None
    assert pickle.loads(pickle.dumps(drawn)) == drawn == drawn_items(settings)
    probe = drawn.open()
    assert len(set(probe.names)) == len(probe.names) == 48
    counts = Counter(name.split("/")[0] for name in probe.names)
    assert set(counts) == {"instructions", "knowledge", "arithmetic"}
    assert set(counts) == {name.split("/")[0] for name in probe.names[:24]}
    assert {each.max_tokens for each in probe.questions} == {1, 40}
    assert {each.temperature for each in probe.questions} == {0.0}
    given = asked(probe, "17")
    given[0] = None
    scores = probe.scores(given)
    assert scores[0] is None
    assert len(scores) == 48
    assert set(scores[1:]) == {0.0, 1.0}


def test_an_item_that_is_asked_in_another_way_is_another_item() -> None:
    names = []
    for most in (40, 41):
        drawn = drawn_items(CapabilitySettings(items=240, max_tokens=most))
        assert drawn is not None
        names.append(set(drawn.open().names))
    assert {name.split("/")[0] for name in names[0] & names[1]} == {"knowledge"}
    assert len(names[0]) == 240


def test_items_by_path_are_read_before_the_run_and_missing_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        drawn_items(CapabilitySettings(items=40, suite="paper", data=str(tmp_path / "nowhere")))
    assert "is no folder" in str(caught.value)
    assert drawn_items(CapabilitySettings()) is None
