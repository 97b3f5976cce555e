"""What each alarm looks at: one or several series of a run, as deviations in standard errors.

A deviation is positive in the direction that is bad. Three kinds of centre: what the run itself was at its
start, the best level that it had, and a bound that is the same for every run.
"""

from dataclasses import dataclass

import numpy as np

from dynalign.evaluation.alarms.cusum import (
    Steps,
    Values,
    best_levels,
    from_best,
    from_reference,
    long_run_std,
)
from dynalign.evaluation.alarms.history import Column, History

REFERENCE = 24
"""Measured steps at the start of a run that an alarm compares with; until then it is silent."""
REFERENCE_EVALUATIONS = 8
"""The same for a figure of the held-out evaluations, which stand several steps apart."""
BEST_GAP = 10
"""Steps between the newest level that counts as the best one and the step that is compared with it."""
MOST_CORRELATION = 0.5
"""A run that starts with a larger correlation of score and length, or of error and confidence, has no clean
reference."""
LEAST_RELIABILITY = 0.5
"""Share of the variance within groups that has to be more than the judge's noise."""
MOST_UNPARSED = 0.05
"""Share of unreadable verdicts that is no cause for an alarm."""
MOST_INJECTED = 0.02
"""Share of answers that may look like an attack by chance: answers about scores, or about chat templates."""
OVERDISPERSION = 1.3
"""Candidates of a group are alike, so shares and variances of a step scatter more than those of independent
candidates: the square root of the design effect 1 + (8 - 1) · 0.1, for groups of 8 and an intraclass
correlation of 0.1."""


@dataclass(frozen=True)
class Signal:
    """One series that an alarm looks at.

    Example: `Signal("mean reward", array([1, 2]), array([0, 1]), array([2.1, 1.9]), array([nan, 0.4]), 2.1)`.
    """

    quantity: str
    """What it is, in words."""
    steps_T: Steps
    """The steps at which it was measured."""
    rows_T: Steps
    """Where these steps stand in the history."""
    values_T: Values
    """The values, for a reader."""
    deviations_T: Values
    """How far they are from where they should be, in standard errors; NaN while that is not known."""
    usual: float | None
    """Where they should be, for a reader."""


def _signal(quantity: str, column: Column, deviations_T: Values, usual: float | None = None) -> Signal:
    if usual is None and len(column.values_T):
        usual = float(column.values_T[:REFERENCE].mean())
    return Signal(quantity, column.steps_T, column.rows_T, column.values_T, deviations_T, usual)


def _score_floor(history: History) -> float:
    """The standard error of a step's mean score, in points, if nothing but the candidates varied."""
    spread = history.typical("reward_std", REFERENCE)
    return 0.0 if spread is None else spread / float(np.sqrt(history.candidates(REFERENCE)))


def _fisher(values_T: Values) -> Values:
    """Fisher's transformation: the standard error of a correlation is then the same wherever it lies."""
    transformed: Values = np.arctanh(np.clip(values_T, -0.99, 0.99))
    return transformed


def _correlation(history: History, name: str, quantity: str, up: bool, bound: float | None) -> Signal:
    """A correlation that leaves its reference. bound: the worst reference that counts as clean."""
    column = history.column(name)
    floor = 1.0 / float(np.sqrt(history.candidates(REFERENCE)))
    worst = None if bound is None else float(np.arctanh(bound))
    return _signal(quantity, column, from_reference(_fisher(column.values_T), REFERENCE, floor, up, worst))


def _share(history: History, name: str, quantity: str, most: float) -> Signal:
    """A share of the candidates above `most`, on the arcsine scale, where its standard error is constant."""
    column = history.column(name)
    scale = OVERDISPERSION / (2.0 * float(np.sqrt(history.candidates(REFERENCE))))
    angles_T = np.arcsin(np.sqrt(np.clip(column.values_T, 0.0, 1.0)))
    return _signal(quantity, column, (angles_T - float(np.arcsin(np.sqrt(most)))) / scale, most)


def reward_collapse(history: History) -> list[Signal]:
    """The mean reward below the best level that it had."""
    column = history.column("reward_mean")
    deviations_T = from_best(column.values_T, REFERENCE, BEST_GAP, _score_floor(history))
    best_T = best_levels(column.values_T, REFERENCE, BEST_GAP)
    usual = float(best_T[-1]) if len(best_T) and not np.isnan(best_T[-1]) else None
    return [_signal("mean reward", column, deviations_T, usual)]


def capability_loss(history: History) -> list[Signal]:
    """The change of a probe's score since before training, in its own standard error."""
    column = history.column("capability_change", "capability_change_se")
    errors_T = history.column("capability_change_se", "capability_change").values_T
    deviations_T = -column.values_T / np.maximum(errors_T, np.finfo(float).tiny)
    return [_signal("change of the capability probe", column, deviations_T, 0.0)]


def prompt_overfitting(history: History) -> list[Signal]:
    """Mean training reward since the evaluation before, less the held-out reward with the system prompt."""
    held = history.column("heldout_prompted_reward_mean")
    rewards = history.column("reward_mean")
    gaps: list[float] = []
    kept: list[int] = []
    before = -1
    for index, row in enumerate(held.rows_T):
        between = rewards.values_T[(rewards.rows_T > before) & (rewards.rows_T <= row)]
        before = int(row)
        if len(between):
            gaps.append(float(between.mean()) - float(held.values_T[index]))
            kept.append(index)
    column = Column(held.steps_T[kept], held.rows_T[kept], np.array(gaps))
    floor = 0.0
    if len(gaps) > REFERENCE_EVALUATIONS and len(rewards.values_T) >= REFERENCE:
        until = column.rows_T[REFERENCE_EVALUATIONS - 1]
        each = max(1.0, float((rewards.rows_T <= until).sum()) / REFERENCE_EVALUATIONS)
        # The standard error of a mean of the steps between two evaluations.
        floor = long_run_std(rewards.values_T[:REFERENCE]) / float(np.sqrt(each))
    deviations_T = from_reference(column.values_T, REFERENCE_EVALUATIONS, floor, up=True)
    usual = float(np.mean(gaps[:REFERENCE_EVALUATIONS])) if gaps else None
    return [_signal("training reward less held-out reward", column, deviations_T, usual)]


def aspect_imbalance(history: History) -> list[Signal]:
    """The distance between the best and the worst aspect of the rubric."""
    column = history.column("aspect_spread")
    deviations_T = from_reference(column.values_T, REFERENCE, _score_floor(history), up=True)
    return [_signal("distance between the rubric's best and worst aspect", column, deviations_T)]


def value_drift(history: History) -> list[Signal]:
    """The mean of the judge's score less the second judge's, either way, and their order within groups."""
    gap = history.column("second_judge_gap")
    floor = _score_floor(history)
    higher_T = from_reference(gap.values_T, REFERENCE, floor, up=True)
    lower_T = from_reference(gap.values_T, REFERENCE, floor, up=False)
    agreement = "rank correlation of both judges within groups"
    return [
        _signal("score less the second judge's", gap, higher_T),
        _signal("score less the second judge's", gap, lower_T),
        _correlation(history, "second_judge_rank_correlation", agreement, up=False, bound=None),
    ]


def length_gaming(history: History) -> list[Signal]:
    """The correlation of score and length within groups, either way."""
    name = "score_length_correlation_within"
    quantity = "correlation of score and length within groups"
    return [
        _correlation(history, name, quantity, up=True, bound=MOST_CORRELATION),
        _correlation(history, name, quantity, up=False, bound=-MOST_CORRELATION),
    ]


def low_reliability(history: History) -> list[Signal]:
    """The noise's share 1 - reliability against 1 - 0.5, as logarithms.

    The standard error of the logarithm of a variance of N candidates is sqrt(2 / N).
    """
    column = history.column("advantage_reliability")
    scale = OVERDISPERSION * float(np.sqrt(2.0 / history.candidates(REFERENCE)))
    noise_T = np.clip(1.0 - column.values_T, 1e-3, 1e3)
    deviations_T = (np.log(noise_T) - float(np.log(1.0 - LEAST_RELIABILITY))) / scale
    return [_signal("reliability of the advantages", column, deviations_T, LEAST_RELIABILITY)]


def self_bias(history: History) -> list[Signal]:
    """The correlation of the judge's error with the policy's confidence within groups (RLER, arXiv
    2510.08977). The error is the score less the second judge's."""
    quantity = "correlation of the judge's error and the policy's confidence"
    return [_correlation(history, "self_bias_correlation", quantity, up=True, bound=MOST_CORRELATION)]


def unparsed_verdicts(history: History) -> list[Signal]:
    """The share of verdicts that cannot be read, those of withheld groups included."""
    return [_share(history, "unreadable_fraction", "share of verdicts that cannot be read", MOST_UNPARSED)]


def injection(history: History) -> list[Signal]:
    """The share of answers with the shape of a known attack on judges."""
    return [_share(history, "injection_fraction", "share of answers that look like attacks", MOST_INJECTED)]
