"""Agreement of judges: Krippendorff's alpha, and Kendall's tau-b within groups.

alpha = 1 - D_o/D_e over all pairs of values of a unit (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability"), with squared differences δ²:

    nominal    δ² = 1 for different values
    interval   δ² = (c - k)²
    ordinal    δ² = (r_c - r_k)², where r are the midranks of the values in all pairable ones together;
               this is Krippendorff's (n_c/2 + … + n_k/2)², written as a difference of ranks
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.statistics.bootstrap import RESAMPLES, Floats, percentile_interval, with_ends
from dynalign.evaluation.statistics.estimates import Clusters, Estimate, clustered_mean

Level = Literal["nominal", "ordinal", "interval"]
"""The level of measurement."""


@dataclass(frozen=True)
class WithinGroups:
    """A rank correlation within groups: `WithinGroups(Estimate(0.31, 0.12, 0.5, 24), 24, 8)`."""

    correlation: Estimate | None
    """Kendall's tau-b, the mean over groups; None where no group has spread."""
    groups: int
    """Groups in that mean."""
    without_spread: int
    """Groups left out, because one side gives all their candidates the same score."""


class _Pairable:
    """The values of all units that have at least two: what alpha is computed from, for any weights of units.

    Arrays of N values are sorted by unit, those of V distinct values ascending."""

    def __init__(self, ratings_JU: Floats, level: Level) -> None:
        self._level = level
        present_JU = ~np.isnan(ratings_JU)
        self.kept_U: NDArray[np.bool_] = present_JU.sum(axis=0) > 1
        by_unit = ratings_JU[:, self.kept_U].T
        present = ~np.isnan(by_unit)
        self._sizes_U = present.sum(axis=1)
        self._unit_N = np.repeat(np.arange(len(by_unit)), self._sizes_U)
        self._starts_U = np.cumsum(self._sizes_U) - self._sizes_U
        self._distinct_V, self._value_N = np.unique(by_unit[present], return_inverse=True)
        counts = np.zeros((len(by_unit), len(self._distinct_V)))
        np.add.at(counts, (self._unit_N, self._value_N), 1.0)
        self._counts_UV: Floats = counts

    def alpha(self, weights_BU: Floats) -> Floats:
        """Alpha for each row of weights; NaN where all values are equal."""
        counts_BV = weights_BU @ self._counts_UV
        totals_B = counts_BV.sum(axis=1)
        if self._level == "nominal":
            same_U = (self._counts_UV**2).sum(axis=1)
            apart_U = (self._sizes_U**2 - same_U) / (self._sizes_U - 1)
            observed_B = weights_BU @ apart_U
            expected_B = totals_B**2 - (counts_BV**2).sum(axis=1)
        else:
            scale_BV = self._scale(counts_BV)
            observed_B = (weights_BU * self._apart(scale_BV[:, self._value_N])).sum(axis=1)
            squares_B = (counts_BV * scale_BV**2).sum(axis=1)
            expected_B = 2 * (totals_B * squares_B - (counts_BV * scale_BV).sum(axis=1) ** 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            alpha_B = 1 - (totals_B - 1) * observed_B / expected_B
        return np.where(expected_B > 1e-9 * totals_B**2, alpha_B, np.nan)

    def _scale(self, counts_BV: Floats) -> Floats:
        """The values as numbers whose squared differences are δ², centred."""
        if self._level == "interval":
            scale_BV = np.broadcast_to(self._distinct_V, counts_BV.shape)
        else:
            scale_BV = np.cumsum(counts_BV, axis=1) - counts_BV / 2
        totals_B1 = counts_BV.sum(axis=1, keepdims=True)
        return np.asarray(scale_BV - (counts_BV * scale_BV).sum(axis=1, keepdims=True) / totals_B1)

    def _apart(self, values_BN: Floats) -> Floats:
        """Σ (x_i - x_j)² / (m - 1) over the ordered pairs of each unit's m values.

        It is 2·m·Σ (x - mean)² / (m - 1)."""
        sums_BU = np.add.reduceat(values_BN, self._starts_U, axis=1)
        squares_BU = np.add.reduceat(values_BN**2, self._starts_U, axis=1)
        return np.asarray(2 * (self._sizes_U * squares_BU - sums_BU**2) / (self._sizes_U - 1))


def krippendorff_alpha(
    ratings_JU: Sequence[Sequence[float | None]],
    level: Level,
    clusters_U: Clusters | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """Krippendorff's alpha of J raters over U units, with a bootstrap interval over clusters of units.

    ratings_JU: one row per rater; None for a missing value. clusters_U: the cluster of each unit, such as its
    prompt; None: every unit for itself. A unit with fewer than two values tells nothing and is left out.

    None where alpha is not defined: no unit has two values, or all values are equal. Raises ValueError for
    rows of different lengths."""
    ratings = np.array(
        [[np.nan if value is None else value for value in row] for row in ratings_JU], dtype=np.float64
    )
    if ratings.ndim != 2 or not ((~np.isnan(ratings)).sum(axis=0) > 1).any():
        return None
    pairable = _Pairable(ratings, level)
    units = np.arange(ratings.shape[1]) if clusters_U is None else _numbered(clusters_U, ratings.shape[1])
    _, cluster_U = np.unique(units[pairable.kept_U], return_inverse=True)
    whole = float(pairable.alpha(np.ones((1, len(cluster_U))))[0])
    if np.isnan(whole):
        return None
    clusters = int(cluster_U.max()) + 1
    # In pieces: an ordinal alpha ranks all values anew in each resample.
    piece = max(1, (1 << 21) // int(pairable.kept_U.size * len(ratings)))

    def resampled(weights_BC: Floats) -> Floats:
        starts = range(0, len(weights_BC), piece)
        return np.concatenate([pairable.alpha(weights_BC[at : at + piece, cluster_U]) for at in starts])

    ends = percentile_interval(resampled, clusters, seed, resamples)
    return with_ends(whole, ends, clusters)


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b: (concordant - discordant) / √(pairs untied in first · pairs untied in second).

    None where one of the two has no spread. Raises ValueError for sequences of different lengths."""
    x = np.asarray(first, dtype=np.float64)
    y = np.asarray(second, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"two scores per candidate are needed; got {len(x)} and {len(y)}")
    signs_x = np.sign(x[:, None] - x)
    signs_y = np.sign(y[:, None] - y)
    untied = np.count_nonzero(signs_x) * np.count_nonzero(signs_y)
    return float((signs_x * signs_y).sum() / np.sqrt(untied)) if untied else None


def tau_within_groups(
    groups: Sequence[tuple[Sequence[float | None], Sequence[float | None]]],
    clusters: Clusters | None = None,
) -> WithinGroups:
    """Kendall's tau-b within each group, averaged over groups, with an interval clustered by group.

    groups: the scores of a group's candidates by the one and by the other; a candidate without both is left
    out. clusters: of each group, such as its prompt; None: every group for itself."""
    owners = range(len(groups)) if clusters is None else clusters
    kept: list[float] = []
    owner_of_kept = []
    for (first, second), owner in zip(groups, owners, strict=True):
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
        tau = kendall_tau_b([a for a, _ in pairs], [b for _, b in pairs])
        if tau is not None:
            kept.append(tau)
            owner_of_kept.append(owner)
    mean = clustered_mean(kept, owner_of_kept)
    return WithinGroups(None if mean is None else _within_one(mean), len(kept), len(groups) - len(kept))


def _within_one(estimate: Estimate) -> Estimate:
    """The same with its interval cut to the range of a correlation."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.mean, max(-1.0, estimate.low), min(1.0, estimate.high), estimate.n)


def _numbered(clusters: Clusters, units: int) -> NDArray[np.int64]:
    if len(clusters) != units:
        raise ValueError(f"one cluster per unit is needed; got {len(clusters)} for {units} units")
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[cluster] for cluster in clusters])
