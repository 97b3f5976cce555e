"""The mean of differences that were measured with several seeds on the same prompts: both are random.

Two arms of an experiment were run with S seeds and evaluated on N prompts, so there is a difference for each
seed and prompt, d = mean + seed + prompt + rest. Another experiment would have other seeds and other prompts.
With the mean squares of the two-way table without repeats, and v = MS_seeds + MS_prompts - MS_rest,

    standard error = √(v / (S·N))
    degrees = v² / (MS_seeds²/(S - 1) + MS_prompts²/(N - 1) + MS_rest²/((S - 1)(N - 1)))

This is the quasi-F of Clark (1973, Journal of Verbal Learning and Verbal Behavior 12:335, "The
language-as-fixed-effect fallacy") with the degrees of Satterthwaite (1946, Biometrics Bulletin 2:110). Where
MS_rest is not the smallest of the three, the smallest is subtracted instead, so that v is never below the
largest one of seeds and prompts. The degrees are then those of that one alone, and never below the smaller of
S - 1 and N - 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalign.evaluation.statistics.bootstrap import Floats
from dynalign.evaluation.statistics.estimates import Estimate

LEVEL = 0.05
"""Of a test of both directions; of one direction as well."""
POWER = 0.8
"""The convention for a planned test."""
MOST_SEEDS = 1000
"""More would not be run by anybody."""


@dataclass(frozen=True)
class Components:
    """How the differences of two arms vary, as variances in squared units of the measure.

    Example: `Components(seeds=0.01, prompts=0.04, rest=0.25)`, standard deviations 0.1, 0.2 and 0.5 points.
    """

    seeds: float
    """Between seeds, the same on all prompts."""
    prompts: float
    """Between prompts, the same with all seeds."""
    rest: float
    """Of one seed on one prompt."""


@dataclass(frozen=True)
class CrossedMean:
    """A mean difference with what its interval stands on.

    Example: `CrossedMean(0.21, 0.08, 6.3, seeds=3, prompts=32, components=Components(0.01, 0.04, 0.25))`.
    """

    mean: float
    """The mean over seeds and prompts."""
    error: float | None
    """Its standard error; None where all differences are equal, which tells nothing about others."""
    degrees: float
    """Of Student's t."""
    seeds: int
    """Seeds that both arms have."""
    prompts: int
    """Prompts with a value in each of their runs; 0 for a measure with one value per run."""
    components: Components | None
    """The variances that were found; None for a measure with one value per run."""

    @property
    def estimate(self) -> Estimate:
        """The mean with its 95 % interval."""
        if self.error is None:
            return Estimate(self.mean, n=self.seeds)
        half = _quantile(1 - LEVEL / 2, self.degrees) * self.error
        return Estimate(self.mean, self.mean - half, self.mean + half, self.seeds)

    def p_different(self) -> float:
        """Of the hypothesis that the arms do not differ, both directions; 1 where there is no interval."""
        return 1.0 if self.error is None else 2 * _above(abs(self.mean) / self.error, self.degrees)

    def p_not_above(self, bound: float) -> float:
        """Of the hypothesis that the difference is `bound` or less; 1 where there is no interval."""
        return 1.0 if self.error is None else _above((self.mean - bound) / self.error, self.degrees)


def crossed_mean(values_SN: Sequence[Sequence[float]]) -> CrossedMean | None:
    """The mean of differences of S seeds on N prompts; None with fewer than two of either.

    Raises ValueError for rows of different lengths."""
    values = np.array(values_SN, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        return None
    seeds, prompts = values.shape
    mean = float(values.mean())
    squares = _mean_squares(values, mean)
    components = Components(
        max(0.0, (squares[0] - squares[2]) / prompts), max(0.0, (squares[1] - squares[2]) / seeds), squares[2]
    )
    whole = squares[0] + squares[1] - min(squares)
    if whole <= 1e-18:
        return CrossedMean(mean, None, 1.0, seeds, prompts, components)
    error = math.sqrt(whole / (seeds * prompts))
    return CrossedMean(mean, error, _degrees(squares, seeds, prompts), seeds, prompts, components)


def seeds_mean(values_S: Sequence[float]) -> CrossedMean | None:
    """The same for a measure with one value per run: the paired t test over seeds. None with fewer than
    two."""
    values = np.array(values_S, dtype=np.float64)
    if len(values) < 2:
        return None
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return CrossedMean(
        float(values.mean()), error if error > 1e-9 else None, len(values) - 1.0, len(values), 0, None
    )


def smallest_visible(components: Components, seeds: int, prompts: int, tests: int) -> float:
    """The difference that a test finds with a probability of 80 %, at Holm's first level of `tests` tests.

    (t(1 - 0.05/(2·tests)) + t(0.8)) · √(seeds/S + prompts/N + rest/(S·N)), with the variances of `components`
    and the degrees of their expected mean squares."""
    squares = (
        components.rest + prompts * components.seeds,
        components.rest + seeds * components.prompts,
        components.rest,
    )
    whole = squares[0] + squares[1] - squares[2]
    if whole <= 0:
        return 0.0
    degrees = _degrees(squares, seeds, prompts)
    quantiles = _quantile(1 - LEVEL / (2 * tests), degrees) + _quantile(POWER, degrees)
    return quantiles * math.sqrt(whole / (seeds * prompts))


def seeds_needed(components: Components, prompts: int, tests: int, difference: float) -> int | None:
    """The fewest seeds with which `difference` is visible on so many prompts; None where no number will do,
    because the prompts differ too much among themselves."""
    low = 2
    high = 2
    while smallest_visible(components, high, prompts, tests) > difference:
        low = high
        high *= 2
        if high > MOST_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        if smallest_visible(components, middle, prompts, tests) > difference:
            low = middle + 1
        else:
            high = middle
    return high


def _mean_squares(values_SN: Floats, mean: float) -> tuple[float, float, float]:
    """Between seeds, between prompts, and of the rest."""
    seeds, prompts = values_SN.shape
    of_seeds = values_SN.mean(axis=1) - mean
    of_prompts = values_SN.mean(axis=0) - mean
    rest = values_SN - mean - of_seeds[:, None] - of_prompts
    return (
        prompts * float((of_seeds**2).sum()) / (seeds - 1),
        seeds * float((of_prompts**2).sum()) / (prompts - 1),
        float((rest**2).sum()) / ((seeds - 1) * (prompts - 1)),
    )


def _degrees(squares: tuple[float, float, float], seeds: int, prompts: int) -> float:
    parts = (
        (squares[0], seeds - 1),
        (squares[1], prompts - 1),
        (squares[2], (seeds - 1) * (prompts - 1)),
    )
    whole = squares[0] + squares[1] - min(squares)
    least = min(seeds, prompts) - 1
    kept = parts if squares[2] <= min(squares) else (max(parts[:2]),)
    return max(float(least), whole**2 / sum(square**2 / degrees for square, degrees in kept))


def _quantile(probability: float, degrees: float) -> float:
    # Not at the head: SciPy takes a second to load.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def _above(t: float, degrees: float) -> float:
    """The probability that Student's t is larger."""
    from scipy.special import stdtr

    return float(stdtr(degrees, -t))
