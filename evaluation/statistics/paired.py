"""What changes between two judgements of the same: by how much, in which direction, and with the position."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dynalign.evaluation.statistics.auc import share_interval
from dynalign.evaluation.statistics.estimates import Clusters, Estimate, clustered_mean


@dataclass(frozen=True)
class PairedChange:
    """Scores before and after a change.

    Example: `PairedChange(Estimate(0.31, 0.2, 0.42, 16), Estimate(0.1, 0.0, 0.2, 16), 16)`."""

    size: Estimate | None
    """Mean |Δ|."""
    shift: Estimate | None
    """Mean Δ: positive where the change raises the score."""
    pairs: int
    """Pairs of two scores."""


@dataclass(frozen=True)
class Flips:
    """Labels before and after a change: `Flips(up=5, down=1, pairs=16, p=0.219)`."""

    up: int
    """Labels that became higher."""
    down: int
    """Labels that became lower."""
    pairs: int
    """Pairs of two labels."""
    p: float
    """Probability of so unequal numbers if both directions are equally likely (McNemar's exact test)."""

    @property
    def share(self) -> float | None:
        """Labels that changed, as a share of the pairs; None without pairs."""
        return (self.up + self.down) / self.pairs if self.pairs else None


@dataclass(frozen=True)
class PositionBias:
    """Pairwise verdicts in both orders: `PositionBias(Estimate(0.08, …), 13, 100, 0.6)`."""

    bias: Estimate | None
    """P(first) - ½: 0 without a bias, ½ for a judge that always prefers what it sees first."""
    flips: int
    """Pairs whose verdict changed with the order."""
    pairs: int
    """Pairs judged in both orders."""
    win_rate: float | None
    """Of the first model, mean over both orders; None without pairs."""

    @property
    def follows_the_order(self) -> bool:
        """Whether more than half of the verdicts flip, by the lower end of the 95 % interval of their share.
        Half of a coin's verdicts do, so such a judge goes by the place in each pair, now the one, now the
        other."""
        if not self.pairs:
            return False
        low = share_interval(self.flips / self.pairs, 0.0, self.pairs, self.pairs).low
        return low is not None and low > 0.5


def change(before: Sequence[float | None], after: Sequence[float | None], clusters: Clusters) -> PairedChange:
    """How scores change, with intervals clustered by prompt. A pair with a missing score is left out."""
    kept = [
        (b - a, cluster)
        for a, b, cluster in zip(before, after, clusters, strict=True)
        if a is not None and b is not None
    ]
    owners = [cluster for _, cluster in kept]
    size = clustered_mean([abs(delta) for delta, _ in kept], owners)
    return PairedChange(size, clustered_mean([delta for delta, _ in kept], owners), len(kept))


def label_flips(before: Sequence[int | None], after: Sequence[int | None]) -> Flips:
    """How many labels change, and in which direction. A pair with a missing label is left out."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    up = sum(b > a for a, b in pairs)
    down = sum(b < a for a, b in pairs)
    return Flips(up, down, len(pairs), mcnemar_p(up, down))


def mcnemar_p(up: int, down: int) -> float:
    """McNemar's exact test, two-sided: twice the smaller tail of a binomial with ½, at most 1."""
    # Not at the head: SciPy takes a second to load.
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(up, down), up + down, 0.5)))


def position_bias(
    when_first: Sequence[float], when_second: Sequence[float], clusters: Clusters | None = None
) -> PositionBias:
    """The bias of pairwise verdicts on a model's answer, with an interval clustered by prompt.

    when_first, when_second: for each pair the verdict in the order that shows the model's answer first,
    and in the other: 1 it wins, ½ a tie, 0 it loses. clusters: of each pair; None: every pair for
    itself."""
    owners = range(len(when_first)) if clusters is None else clusters
    both = list(zip(when_first, when_second, strict=True))
    bias = clustered_mean([(a - b) / 2 for a, b in both], owners)
    win_rate = fmean((a + b) / 2 for a, b in both) if both else None
    return PositionBias(bias, sum(a != b for a, b in both), len(both), win_rate)
