"""The capability probe: items of a suite, asked again and again during training.

    `drawn_items`, in the driver ─► `DrawnItems.open`, in the coordinator ─► questions, and later their scores

What feeds the alarm `capability_loss` is the change of the score since before training, over the same items,
and its standard error, from the paired differences of the items.
"""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Protocol

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.capability import LEAST_ITEMS, CapabilitySettings
from dynalign.configs.user_paths import user_path
from dynalign.endpoint.base import Answers, Question
from dynalign.evaluation.suites.asking import Asking, ItemAnswers, question_of, read, scores_of
from dynalign.evaluation.suites.harness import SEED, HarnessTask
from dynalign.evaluation.suites.items import Row
from dynalign.evaluation.suites.sources import rows_of
from dynalign.evaluation.suites.tasks import SUITES, SuiteTask

POLICY = "policy"
"""The name under which the questions ask for the model."""


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


class ProbeItems(Protocol):
    """Items that can be asked and graded; the same order everywhere."""

    @property
    def names(self) -> Sequence[str]:
        """Of each item its task, and a hash of all that is asked, so that a changed item is another one."""
        ...

    @property
    def questions(self) -> Sequence[Question]: ...

    def scores(self, answers: Sequence[Answers | None]) -> list[float | None]:
        """Between 0 and 1; None without an answer."""
        ...


class ProbeDraw(Protocol):
    """What a driver gives to its coordinator."""

    def open(self) -> ProbeItems: ...


@dataclass(frozen=True)
class DrawnItems:
    """The rows of a probe, plain data that crosses actors.

    Example: `DrawnItems(((SUITES["quick"][0], (row, row)),), thinking_tokens=0)`.
    """

    tasks: tuple[tuple[SuiteTask, tuple[Row, ...]], ...]
    """Each task with its items."""
    thinking_tokens: int
    """Tokens that a model may think before an answer."""

    def open(self) -> "OpenedProbe":
        """Takes seconds, for the harness is imported. Raises UserError for items that are not their task's,
        or where the harness is not installed."""
        tasks = tuple(HarnessTask(task, rows) for task, rows in self.tasks if rows)
        return OpenedProbe(tasks, self.thinking_tokens)


class OpenedProbe:
    """`ProbeItems` of the harness. The order is drawn, so that the first of them are of every task."""

    def __init__(self, tasks: Sequence[HarnessTask], thinking_tokens: int) -> None:
        self._tasks = tasks
        how = Asking(POLICY, thinking_tokens=thinking_tokens)
        found = [
            (_cheapest(question_of(task.task, item, how)), place, number)
            for place, task in enumerate(tasks)
            for number, item in enumerate(task.items)
        ]
        random.Random(SEED).shuffle(found)
        self._places = [(place, number) for _, place, number in found]
        self.questions: tuple[Question, ...] = tuple(question for question, _, _ in found)
        self.names: tuple[str, ...] = tuple(
            f"{tasks[place].task.name}/{_digest(question)}" for question, place, _ in found
        )

    def scores(self, answers: Sequence[Answers | None]) -> list[float | None]:
        """The harness's verdicts, turned round where less of them is better."""
        given = dict(zip(self._places, answers, strict=True))
        by_place: dict[tuple[int, int], float | None] = {}
        for place, task in enumerate(self._tasks):
            read_N = []
            for number, item in enumerate(task.items):
                answer = given[place, number]
                nothing = ItemAnswers(item.id, (), 0, 0)
                read_N.append(nothing if answer is None else read(item, answer.answers_N))
            for number, score in enumerate(scores_of(task, read_N)):
                by_place[place, number] = _goodness(task.task, score)
        return [by_place[each] for each in self._places]


def drawn_items(settings: CapabilitySettings) -> DrawnItems | None:
    """The items of a run's probe, drawn the same way every time; None without a probe.

    Raises UserError for items that are not there, for fewer than `LEAST_ITEMS`."""
    if settings.items == 0:
        return None
    data = None if settings.data is None else Path(user_path("capability.data", settings.data))
    tasks = [
        replace(task, max_tokens=min(task.max_tokens, settings.max_tokens), repeats=1)
        for task in SUITES[settings.suite]
    ]
    rows = _rows(tasks, data)
    places = [(task, row) for task, own in enumerate(rows) for row in range(len(own))]
    if len(places) < LEAST_ITEMS:
        rule = f"has {len(places)} items of the suite {settings.suite}; {LEAST_ITEMS} are needed"
        raise UserError([Mistake("capability.data", settings.data, rule, "give more items")])
    drawn = random.Random(SEED).sample(places, min(settings.items, len(places)))
    chosen = [
        tuple(rows[place][row] for task, row in sorted(drawn) if task == place) for place in range(len(tasks))
    ]
    return DrawnItems(tuple(zip(tasks, chosen, strict=True)), settings.thinking_tokens)


def _rows(tasks: Sequence[SuiteTask], data: Path | None) -> list[list[Row]]:
    """The items of each task. Raises UserError with what is missing of all of them, in a run's words."""
    found = []
    mistakes: list[Mistake] = []
    for task in tasks:
        try:
            found.append(rows_of(task, data))
        except UserError as error:
            mistakes += [each for each in error.mistakes if each not in mistakes]
    if mistakes:
        setting = "capability.data"
        raise UserError(
            [
                replace(
                    each,
                    place=each.place.replace("--data", setting),
                    remedy=each.remedy.replace("--data", setting),
                )
                for each in mistakes
            ]
        )
    return found


def capability_change(before: Mapping[str, float], now: Mapping[str, float]) -> CapabilityChange | None:
    """The change over the items of both; None with fewer than `LEAST_ITEMS` of them.

    before, now: item → score between 0 and 1."""
    changes = [now[item] - before[item] for item in sorted(before.keys() & now.keys())]
    if len(changes) < LEAST_ITEMS:
        return None
    error = math.sqrt(variance(changes) / len(changes))
    return CapabilityChange(fmean(changes), max(error, 1 / len(changes)), len(changes))


def _cheapest(question: Question) -> Question:
    """A label's log-probabilities are those of the first token: no other one is asked for."""
    return replace(question, max_tokens=1) if question.choices else question


def _goodness(task: SuiteTask, score: tuple[float, ...]) -> float | None:
    if not score:
        return None
    return fmean(score) if task.higher_is_better else 1.0 - fmean(score)


def _digest(question: Question) -> str:
    return hashlib.sha256(repr(question).encode()).hexdigest()[:12]
