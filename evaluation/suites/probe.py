"""The capability probe: the items of the suite `quick`, asked again and again during training.

What feeds the alarm `capability_loss` is the change of the score since before training, over the same items,
and its standard error, from the paired differences of the items.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, variance

from dynalign.endpoint.base import Asker
from dynalign.evaluation.suites.asking import Asking, ask_task, scores_of
from dynalign.evaluation.suites.harness import HarnessTask
from dynalign.evaluation.suites.preparing import prepared
from dynalign.evaluation.suites.tasks import QUICK

LEAST_ITEMS = 30
"""With fewer items a standard error of paired differences means nothing."""


@dataclass(frozen=True)
class CapabilityChange:
    """The metrics `capability_change` and `capability_change_se`: `CapabilityChange(-0.021, 0.009, 240)`."""

    change: float
    """Mean score now less that before training: -0.02 are 2 points lost."""
    standard_error: float
    """Of the change, at least that of one item that changes: 0 would let an alarm fire on nothing."""
    items: int
    """Items that were scored both times."""

    def columns(self) -> dict[str, float]:
        """Its columns of `metrics.jsonl`."""
        return {"capability_change": self.change, "capability_change_se": self.standard_error}


def probe_tasks() -> tuple[HarnessTask, ...]:
    """The probe's tasks with their items. Raises UserError where the harness is not installed."""
    return prepared(QUICK, None)


async def probe_scores(asker: Asker, tasks: tuple[HarnessTask, ...], model: str) -> dict[str, float]:
    """Item → score of the model as it is now. Raises what `ask_task` raises."""
    found: dict[str, float] = {}
    for task in tasks:
        answers = await ask_task(asker, task, Asking(model))
        scores = scores_of(task, answers)
        found |= {each.item: fmean(score) for each, score in zip(answers, scores, strict=True) if score}
    return found


def capability_change(before: Mapping[str, float], now: Mapping[str, float]) -> CapabilityChange | None:
    """The change over the items of both; None with fewer than `LEAST_ITEMS` of them.

    before, now: item → score between 0 and 1."""
    changes = [now[item] - before[item] for item in sorted(before.keys() & now.keys())]
    if len(changes) < LEAST_ITEMS:
        return None
    error = math.sqrt(variance(changes) / len(changes))
    return CapabilityChange(fmean(changes), max(error, 1 / len(changes)), len(changes))
