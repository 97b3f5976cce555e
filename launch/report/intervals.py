"""95 % intervals of the means that a run reports, by Student's t over independent parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval: `Estimate(1.59, 1.51, 1.67, 32)`."""

    mean: float
    """The mean."""
    low: float | None = None
    """Lower end of the interval; None with fewer than two parts, or where their number is unknown."""
    high: float | None = None
    """Upper end of the interval; None like `low`."""
    n: int | None = None
    """How many independent parts the mean is of; None where that is unknown."""


def mean_interval(values: Sequence[float]) -> Estimate | None:
    """mean ± t·std/√n with n - 1 degrees of freedom; None without values."""
    if not values:
        return None
    mean = fmean(values)
    n = len(values)
    if n < 2:
        return Estimate(mean, n=n)
    half = student_t(n - 1) * stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def ratio_interval(clusters: Sequence[tuple[float, int]]) -> Estimate | None:
    """Σ sum / Σ tokens over clusters (sum, tokens); None without tokens.

    The variance is the linearized one of a ratio: n/(n - 1) · Σ (sum - ratio·tokens)² / (Σ tokens)².
    Clusters are
    groups: tokens of one group are not independent.
    """
    tokens_total = sum(tokens for _, tokens in clusters)
    if not tokens_total:
        return None
    ratio = math.fsum(part for part, _ in clusters) / tokens_total
    n = len(clusters)
    if n < 2:
        return Estimate(ratio, n=n)
    squares = math.fsum((part - ratio * tokens) ** 2 for part, tokens in clusters)
    half = student_t(n - 1) * math.sqrt(n / (n - 1) * squares) / tokens_total
    return Estimate(ratio, ratio - half, ratio + half, n)


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t.

    Exact for 1 and 2 degrees of freedom. Above, by expansion of the normal quantile (Abramowitz & Stegun
    26.7.5): to within 0.2 % at 3, and 0.01 % from 6 on.
    """
    if degrees < 3:
        return (12.706204736, 4.302652730)[degrees - 1]
    z = 1.959963984540054
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))
