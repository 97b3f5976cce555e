"""What a test of non-inferiority can show, before anything is asked: its power, and the repeats it needs.

The variance of an item's difference is τ² + 2ω²/K: τ² between items, ω² that of one answer's score within an
item and a model, K repeats of both models (Miller 2024, arXiv 2411.00640, section 5).
"""

import math
from dataclasses import dataclass

LEVEL = 0.05
"""One-sided: the bound is one of 95 %."""
WANTED_POWER = 0.8
"""The convention."""
MOST_REPEATS = 256
"""More would not be asked for by anybody."""


@dataclass(frozen=True)
class Variances:
    """How an item's scores vary, as shares squared: `Variances(between=0.02, within=0.16)`."""

    between: float
    """τ²: of the true difference of the two models between items."""
    within: float
    """ω²: of one answer's score, the item and the model held fixed; p(1 - p) for right or wrong."""


@dataclass(frozen=True)
class Plan:
    """A planned test.

    Example: `Plan(items=198, repeats=8, margin=0.05, standard_error=0.0174, power=0.89, power_holm=0.76)`.
    """

    items: int
    """Items of the task."""
    repeats: int
    """Answers to each item of each model."""
    margin: float
    """The loss that would still be called none."""
    standard_error: float
    """That the mean difference will have, if the variances are as assumed."""
    power: float
    """The probability of "non-inferior" for a model that has lost nothing, this task alone."""
    power_holm: float
    """The same at Holm's first level, 5 % by the number of tasks: the least that is promised."""


def plan(variances: Variances, items: int, repeats: int, margin: float, tests: int = 1) -> Plan:
    """What a test of `items` items can show, among `tests` of a suite."""
    error = standard_error(variances, items, repeats)
    return Plan(
        items,
        repeats,
        margin,
        error,
        _power(margin / error, items, LEVEL),
        _power(margin / error, items, LEVEL / tests),
    )


def standard_error(variances: Variances, items: int, repeats: int) -> float:
    """√((τ² + 2ω²/K)/n)."""
    return math.sqrt((variances.between + 2 * variances.within / repeats) / items)


def repeats_needed(
    variances: Variances, items: int, margin: float, wanted: float = WANTED_POWER
) -> int | None:
    """The fewest repeats that have the wanted power; None where no number has: there are too few items."""
    for repeats in range(1, MOST_REPEATS + 1):
        if items > 1 and plan(variances, items, repeats, margin).power >= wanted:
            return repeats
    return None


def _power(noncentrality: float, items: int, level: float) -> float:
    """P(T > t) of a noncentral t with n - 1 degrees of freedom; 0 for fewer than two items."""
    if items < 2:
        return 0.0
    from scipy.special import nctdtr, stdtrit

    return float(1 - nctdtr(items - 1, noncentrality, stdtrit(items - 1, 1 - level)))
