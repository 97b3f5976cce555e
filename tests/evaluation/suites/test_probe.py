"""The capability probe: its change with its standard error, and what the alarm makes of it."""

import asyncio
import math

import pytest

from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.evaluation.alarms.alarms import readings
from dynalign.evaluation.suites.harness import HarnessTask
from dynalign.evaluation.suites.items import OWN
from dynalign.evaluation.suites.probe import CapabilityChange, capability_change, probe_scores
from dynalign.evaluation.suites.tasks import TASKS
from tests.worlds.suite_items import RuleModel


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


def test_a_model_is_scored_item_by_item() -> None:
    task = HarnessTask(TASKS["arithmetic"], OWN["arithmetic"]()[:4])
    model = RuleModel(lambda question: "4" if "2 birds" in question.messages[0].content else "nothing")
    found = asyncio.run(probe_scores(model, (task,), "tiny"))
    assert found == {"arithmetic/0": 1.0, "arithmetic/1": 0.0, "arithmetic/2": 0.0, "arithmetic/3": 0.0}
