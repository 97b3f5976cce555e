"""95 % intervals of means and ratios, by Student's t over independent parts."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Clusters = Sequence[Hashable]
"""The cluster of each value, such as its prompt's id. Values of one cluster are not independent."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval: `Estimate(1.59, 1.51, 1.67, 32)`."""

    mean: float
    """The figure: a mean, unless its function says otherwise."""
    low: float | None = None
    """Lower end of the interval; None with fewer than two parts, or where their number is unknown."""
    high: float | None = None
    """Upper end of the interval; None like `low`."""
    n: int | None = None
    """How many independent parts the figure is of; None where that is unknown."""


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
    Clusters are groups: tokens of one group are not independent.
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


def clustered_mean(values: Sequence[float], clusters: Clusters) -> Estimate | None:
    """The mean of values, with an interval clustered by prompt, goal or group; None without values.

    clusters: of each value. With C clusters: mean ± t·√(C/(C - 1)·Σ d²)/n with C - 1 degrees of freedom,
    where d is the sum of a cluster's deviations from the mean (Miller 2024, arXiv 2411.00640, section 2.2,
    with the factor for few clusters). With one value per cluster it is `mean_interval`. Raises ValueError
    for sequences of different lengths."""
    return ratio_interval(list(cluster_sums(values, clusters).values()))


def cluster_sums(values: Sequence[float], clusters: Clusters) -> dict[Hashable, tuple[float, int]]:
    """Cluster → sum and number of its values, in order of appearance."""
    sums: dict[Hashable, tuple[float, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total, number = sums.get(cluster, (0.0, 0))
        sums[cluster] = (total + value, number + 1)
    return sums


def student_t(degrees: float) -> float:
    """The 97.5 % quantile of Student's t."""
    # Not at the head: SciPy takes a second to load, and `dynalign status` needs the class alone.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
