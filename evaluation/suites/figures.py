"""From scores to a suite's figures: scores with intervals, and what was lost against another model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, variance
from typing import Any

from dynalign.evaluation.statistics.auc import share_interval
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.evaluation.statistics.noninferiority import NonInferiority, noninferiority
from dynalign.evaluation.statistics.noninferiority_plan import Plan, plan
from dynalign.evaluation.suites.asking import ItemAnswers
from dynalign.evaluation.suites.tasks import SuiteTask

Scores = Sequence[tuple[float, ...]]
"""For each item one score per repeat; none for an item that the endpoint refused."""


@dataclass(frozen=True)
class TaskFigures:
    """One model at one task: `TaskFigures(Estimate(0.41, 0.36, 0.46, 541), 541, 1, 3, 0, 0)`."""

    score: Estimate | None
    """Mean of the items' mean scores, with its 95 % interval over items; None without answers."""
    items: int
    """Items asked."""
    repeats: int
    """Answers to each."""
    cut: int
    """Answers that reached their most tokens."""
    unread: int
    """Answers without a text or label, which count as wrong."""
    refused: int
    """Items that the endpoint refused. They are in no figure."""


@dataclass(frozen=True)
class ComparedTask:
    """One task of a suite, of one model or of two.

    Example: `ComparedTask("ifeval", "IFEval, strict", True, "", of_model, of_other, loss, False,
    planned)`.
    """

    name: str
    """The task."""
    title: str
    """Its name for a reader."""
    higher_is_better: bool
    """Whether more of the score is what one wants."""
    changed: str
    """How it differs from the harness's task."""
    of_model: TaskFigures
    """Of the model under test."""
    of_other: TaskFigures | None
    """Of the model that it is compared with; None without one."""
    loss: NonInferiority | None
    """Whether something was lost; None without another model, or with fewer than two items of both. Its
    difference is positive where the model is better, whichever way the score goes."""
    at_floor: bool
    """Whether the other model scores so little that the margin could not be lost (see `at_floor`)."""
    planned: Plan
    """What was known of the power beforehand."""


@dataclass(frozen=True)
class SuiteFigures:
    """A suite's figures: `SuiteFigures("paper", "my-run", "smollm2-135m-instruct", tasks)`."""

    suite: str
    """The suite."""
    model: str
    """The model under test."""
    against: str | None
    """The model that it is compared with."""
    tasks: tuple[ComparedTask, ...]
    """In the suite's order."""

    def as_json(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return asdict(self)


def task_figures(task: SuiteTask, answers: Sequence[ItemAnswers], scores: Scores) -> TaskFigures:
    """The figures of one model at one task."""
    means = [fmean(each) for each in scores if each]
    score = None
    if means:
        spread = variance(means) / len(means) if len(means) > 1 else 0.0
        score = share_interval(fmean(means), spread, len(means), len(means) * task.repeats)
    return TaskFigures(
        score,
        len(scores),
        task.repeats,
        sum(each.cut for each in answers),
        sum(each.unread for each in answers),
        sum(not each for each in scores),
    )


def differences(scores: Scores, others: Scores, higher_is_better: bool = True) -> list[float]:
    """For each item that both answered, its mean score less the other's; positive where it is better."""
    sign = 1.0 if higher_is_better else -1.0
    pairs = zip(scores, others, strict=True)
    return [sign * (fmean(own) - fmean(other)) for own, other in pairs if own and other]


def at_floor(task: SuiteTask, others: Scores) -> bool:
    """Whether the other model scores at most the margin above guessing.

    Such a model could lose everything that it can do without losing the margin, so the comparison has no
    assay sensitivity (ICH E10, 1.5): finding no loss would show nothing. Where less of the score is better,
    there is no such floor."""
    means = [fmean(each) for each in others if each]
    return bool(means) and task.higher_is_better and fmean(means) - task.guessed <= task.margin


def losses(pairs: Sequence[tuple[SuiteTask, Scores, Scores]]) -> list[NonInferiority | None]:
    """Whether something was lost at each task, with Holm's correction over those that can tell. A task at its
    floor has its difference and is inconclusive."""
    found: list[NonInferiority | None] = [None] * len(pairs)
    changes = [differences(own, other, task.higher_is_better) for task, own, other in pairs]
    places = [place for place, change in enumerate(changes) if len(change) > 1]
    telling = [place for place in places if not at_floor(pairs[place][0], pairs[place][2])]
    answers = noninferiority([(changes[place], pairs[place][0].margin) for place in telling])
    for place, answer in zip(telling, answers, strict=True):
        found[place] = answer
    for place in set(places) - set(telling):
        (answer,) = noninferiority([(changes[place], pairs[place][0].margin)])
        found[place] = replace(answer, p_holm=1.0, verdict="inconclusive")
    return found


def planned(tasks: Sequence[tuple[SuiteTask, int]]) -> list[Plan]:
    """The power of each task with its number of items, before anything is asked."""
    return [plan(task.variances, items, task.repeats, task.margin, len(tasks)) for task, items in tasks]
