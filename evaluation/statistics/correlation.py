"""Correlations with intervals by the cluster bootstrap: Spearman's; Pearson's within and between clusters.

Within clusters: of the deviations from each cluster's mean. Between: of the clusters' means (Bland & Altman
1995, BMJ 310:446 and 310:633). Items of one cluster are not independent, so clusters are drawn again.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.statistics.bootstrap import RESAMPLES, Floats, percentile_interval, with_ends
from dynalign.evaluation.statistics.estimates import Clusters, Estimate

_PIECE = 1 << 21
"""Numbers that are ranked at once: 16 MiB."""


def spearman(
    first: Sequence[float], second: Sequence[float], clusters: Clusters, seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:  # fmt: skip
    """Spearman's rank correlation: Pearson's of midranks, ranked anew in each resample.

    None with fewer than three items, or where one side is constant."""
    x = np.asarray(first, dtype=np.float64)
    y = np.asarray(second, dtype=np.float64)
    owners = _owners(clusters)
    if len(x) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None

    def correlation(weights_BC: Floats) -> Floats:
        rows = max(1, _PIECE // len(x))
        parts = [weights_BC[at : at + rows, owners] for at in range(0, len(weights_BC), rows)]
        return np.concatenate([_pearson(part, _midranks(part, x), _midranks(part, y)) for part in parts])

    return _estimate(correlation, owners, seed, resamples)


def within_clusters(
    first: Sequence[float], second: Sequence[float], clusters: Clusters, seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:  # fmt: skip
    """Pearson's correlation of the deviations from the clusters' means.

    Clusters of one item add nothing. None where one side has no spread within any cluster."""
    owners = _owners(clusters)
    if not len(owners):
        return None
    x = _centred(first, owners)
    y = _centred(second, owners)
    sums = np.column_stack([np.bincount(owners, each) for each in (x * x, x * y, y * y)])

    def correlation(weights_BC: Floats) -> Floats:
        xx, xy, yy = (weights_BC @ sums).T
        return _ratio(xy, xx, yy)

    return _estimate(correlation, owners, seed, resamples)


def between_clusters(
    first: Sequence[float], second: Sequence[float], clusters: Clusters, seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:  # fmt: skip
    """Pearson's correlation of the clusters' means; each cluster counts once.

    None with fewer than three clusters, or where one side's means are all equal."""
    owners = _owners(clusters)
    if not len(owners) or owners.max() < 2:
        return None
    x = _means(first, owners)
    y = _means(second, owners)

    def correlation(weights_BC: Floats) -> Floats:
        shape = weights_BC.shape
        return _pearson(weights_BC, np.broadcast_to(x, shape), np.broadcast_to(y, shape))

    return _estimate(correlation, np.arange(len(x)), seed, resamples)


def _estimate(
    statistic: Callable[[Floats], Floats], owners: NDArray[np.int64], seed: int, resamples: int
) -> Estimate | None:
    clusters = int(owners.max()) + 1
    whole = float(statistic(np.ones((1, clusters)))[0])
    if np.isnan(whole):
        return None
    return with_ends(whole, percentile_interval(statistic, clusters, seed, resamples), clusters)


def _pearson(weights_BN: Floats, x_BN: Floats, y_BN: Floats) -> Floats:
    total_B1 = weights_BN.sum(axis=1, keepdims=True)
    x = x_BN - (weights_BN * x_BN).sum(axis=1, keepdims=True) / total_B1
    y = y_BN - (weights_BN * y_BN).sum(axis=1, keepdims=True) / total_B1
    return _ratio(
        (weights_BN * x * y).sum(axis=1), (weights_BN * x * x).sum(axis=1), (weights_BN * y * y).sum(axis=1)
    )


def _ratio(xy: Floats, xx: Floats, yy: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        found = xy / np.sqrt(xx * yy)
    return np.where((xx > 1e-12) & (yy > 1e-12), found, np.nan)


def _midranks(weights_BN: Floats, values_N: Floats) -> Floats:
    """The midrank of each value among all of them, each as often as it is weighted."""
    _, place_N = np.unique(values_N, return_inverse=True)
    by_value = np.zeros((len(values_N), int(place_N.max()) + 1))
    by_value[np.arange(len(values_N)), place_N] = 1.0
    counts_BV = weights_BN @ by_value
    return np.asarray((np.cumsum(counts_BV, axis=1) - counts_BV / 2)[:, place_N])


def _owners(clusters: Clusters) -> NDArray[np.int64]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)


def _means(values: Sequence[float], owners: NDArray[np.int64]) -> Floats:
    return np.asarray(np.bincount(owners, np.asarray(values, dtype=np.float64)) / np.bincount(owners))


def _centred(values: Sequence[float], owners: NDArray[np.int64]) -> Floats:
    return np.asarray(np.asarray(values, dtype=np.float64) - _means(values, owners)[owners])
