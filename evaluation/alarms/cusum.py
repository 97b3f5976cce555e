"""How far a series has moved, in standard errors: deviations from a centre, and their windowed CUSUM.

Metrics of neighbouring steps are correlated: the same policy made them. A standard error that treats them as
independent is too small, and its alarms are false. So the unit of a deviation is the long-run standard
deviation of the clean values at the start of the series.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""A series, oldest value first."""
Steps = NDArray[np.int64]

MOST_CORRELATED = 0.7
"""Bound of the lag-1 correlation that a standard error is widened for. It is estimated from a short
reference, where a larger estimate is mostly a trend."""


@dataclass(frozen=True)
class Cusum:
    """The statistic after each value of a series. Example: `Cusum(array([0.0, 1.5]), array([0, 1]))`."""

    statistic_T: Values
    """Largest sum of the newest deviations, each less the allowance, in standard errors; at least 0."""
    start_T: Steps
    """Index of the first value of that sum; the value's own index where the sum is 0."""


def long_run_std(values_T: Values) -> float:
    """The standard deviation by which sums of a stationary series grow, in the unit of the series.

    s · sqrt((1 + r) / (1 - r)), with s and the lag-1 correlation r of the residuals from a straight line, so
    that a trend of the learning counts as no noise. r is corrected for its bias -(1 + 4 r) / n in short
    series (Kendall 1954, Biometrika 41) and kept between 0 and 0.7. Raises ValueError below four values.
    """
    n = len(values_T)
    if n < 4:
        raise ValueError(f"a long-run standard deviation needs four values, and got {n}")
    times_T = np.arange(n) - (n - 1) / 2
    slope = times_T @ values_T / (times_T @ times_T)
    residuals_T = values_T - values_T.mean() - slope * times_T
    squares = float(residuals_T @ residuals_T)
    if squares == 0.0:
        return 0.0
    estimated = float(residuals_T[1:] @ residuals_T[:-1]) / squares
    correlation = float(np.clip(estimated + (1 + 4 * estimated) / n, 0.0, MOST_CORRELATED))
    return float(np.sqrt(squares / (n - 2) * (1 + correlation) / (1 - correlation)))


def windowed_cusum(deviations_T: Values, allowance: float, window: int, limit: float) -> Cusum:
    """S_t = max(0, max over 1 ≤ n ≤ window of the sum of the newest n of (min(z, limit) - allowance)).

    It is Page's one-sided CUSUM (Biometrika 41, 1954) that forgets what is older than the window, so that it
    falls silent within the window once a fault has gone. deviations_T: z, in standard errors; NaN counts as
    0, before the reference is complete. limit: the most that one value counts for.
    """
    scores_T = np.where(np.isnan(deviations_T), 0.0, np.minimum(deviations_T, limit) - allowance)
    sums = np.concatenate([[0.0], np.cumsum(scores_T)])
    best_T = np.zeros(len(scores_T))
    start_T = np.arange(len(scores_T))
    for lag in range(1, min(window, len(scores_T)) + 1):
        newest = sums[lag:] - sums[:-lag]
        better = newest > best_T[lag - 1 :]
        best_T[lag - 1 :][better] = newest[better]
        start_T[lag - 1 :][better] = np.flatnonzero(better)
    return Cusum(best_T, start_T)


def firing(statistic_T: Values, threshold: float) -> NDArray[np.bool_]:
    """Whether an alarm fires after each value: from the threshold on, until it is below half of it.

    NaN is no statistic, and changes nothing.
    """
    indices_T = np.arange(len(statistic_T))
    known_T = ~np.isnan(statistic_T)
    rose_T = np.maximum.accumulate(np.where(known_T & (statistic_T >= threshold), indices_T, -1))
    fell_T = np.maximum.accumulate(np.where(known_T & (statistic_T < threshold / 2), indices_T, -1))
    fires: NDArray[np.bool_] = rose_T > fell_T
    return fires


def from_reference(
    values_T: Values, reference: int, floor: float, up: bool, bound: float | None = None
) -> Values:
    """Deviations from the mean of the first `reference` values, in their long-run standard deviation; NaN for
    these values themselves.

    floor: the least standard deviation, in the unit of the values. up: a rise is positive, otherwise a fall.
    bound: worse than this is no clean reference: the centre stays on the good side of it.
    """
    deviations_T = np.full(len(values_T), np.nan)
    if len(values_T) <= reference:
        return deviations_T
    sign = 1.0 if up else -1.0
    first_T = values_T[:reference]
    centre = sign * first_T.mean()
    if bound is not None:
        centre = min(centre, sign * bound)
    scale = max(long_run_std(first_T), floor, np.finfo(float).tiny)
    deviations_T[reference:] = (sign * values_T[reference:] - centre) / scale
    return deviations_T


def best_levels(values_T: Values, reference: int, gap: int) -> Values:
    """The best level before each value: the largest mean of `reference` consecutive values that ended at
    least `gap` values earlier; NaN without any. It follows a level that rises, as rewards do, and does not
    fall."""
    best_T = np.full(len(values_T), np.nan)
    first = reference + gap - 1
    if len(values_T) > first:
        sums = np.concatenate([[0.0], np.cumsum(values_T)])
        means = (sums[reference:] - sums[:-reference]) / reference
        best_T[first:] = np.maximum.accumulate(means)[: len(values_T) - first]
    return best_T


def from_best(values_T: Values, reference: int, gap: int, floor: float) -> Values:
    """How far each value lies below the best level before it, in the long-run standard deviation of the first
    `reference` values; NaN while there is no such level. floor: as above."""
    best_T = best_levels(values_T, reference, gap)
    if np.isnan(best_T).all():
        return best_T
    scale = max(long_run_std(values_T[:reference]), floor, np.finfo(float).tiny)
    deviations_T: Values = (best_T - values_T) / scale
    return deviations_T
