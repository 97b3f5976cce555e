"""The cluster bootstrap: whole prompts are drawn again, never single scores or verdicts."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.statistics.estimates import Clusters, Estimate, cluster_sums

Floats = NDArray[np.float64]
RESAMPLES = 10_000
"""The ends of an interval then differ by about 1 % of its width between two seeds."""
_BATCH_WEIGHTS = 1 << 21
"""Numbers drawn at once: 16 MiB."""


def resampled_weights(clusters: int, seed: int, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """How often each cluster is in each resample, in batches of shape (resamples, clusters)."""
    random = np.random.default_rng(seed)
    rows = max(1, _BATCH_WEIGHTS // clusters)
    for start in range(0, resamples, rows):
        batch = min(rows, resamples - start)
        drawn = random.integers(clusters, size=(batch, clusters))
        drawn += np.arange(batch)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=batch * clusters)
        yield counts.reshape(batch, clusters).astype(np.float64)


def percentile_interval(
    statistic: Callable[[Floats], Floats], clusters: int, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic of weighted clusters (Efron & Tibshirani 1993, ch. 13).

    statistic: from weights of shape (resamples, clusters) to one value per resample, NaN where it is not
    defined. Those are left out; None where it is defined in no resample, or with fewer than two clusters.
    """
    if clusters < 2:
        return None
    found = np.concatenate([statistic(weights) for weights in resampled_weights(clusters, seed, resamples)])
    defined = found[~np.isnan(found)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def bootstrapped_mean(
    values: Sequence[float], clusters: Clusters, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """The mean of values with its interval by the cluster bootstrap; None without values.

    clusters: of each value."""
    pairs = cluster_sums(values, clusters).values()
    if not pairs:
        return None
    sums, counts = np.array(list(pairs), dtype=np.float64).T

    def mean(weights: Floats) -> Floats:
        return np.asarray(weights @ sums / (weights @ counts))

    ends = percentile_interval(mean, len(sums), seed, resamples)
    whole = float(sums.sum() / counts.sum())
    return with_ends(whole, ends, len(sums))


def with_ends(value: float, ends: tuple[float, float] | None, clusters: int) -> Estimate:
    """A figure with the ends of its interval; None where it has none."""
    low, high = ends or (None, None)
    return Estimate(value, low, high, clusters)
