"""How far two judges agree on the order of one group, and the weight that its advantages get for that."""

import math
from collections.abc import Sequence


def kendall_tau_b(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau-b: (concordant - discordant) / sqrt(pairs that differ on the one side · on the
    other); None if either side does not vary (Kendall 1945).
    """
    agreement = 0
    differ_first = 0
    differ_second = 0
    for index, (first, second) in enumerate(pairs):
        for other_first, other_second in pairs[index + 1 :]:
            sign_first = (first > other_first) - (first < other_first)
            sign_second = (second > other_second) - (second < other_second)
            agreement += sign_first * sign_second
            differ_first += sign_first != 0
            differ_second += sign_second != 0
    between = math.sqrt(differ_first * differ_second)
    return agreement / between if between else None


def consistency_weight(own_G: Sequence[float | None], earlier_G: Sequence[float | None]) -> float:
    """Return (τ-b + 1) / 2 between two judges' scores of one group: 1 if they agree on every pair that
    neither calls equal, 0 if on none.

    CREAM (arXiv 2410.12735) weighs preferences by the consistency of a self-rewarding model with its earlier
    iteration: an order that the judge of then does not see may be the judge's drift. τ-b, for scores have
    ties. Where it is undefined, since a judge has scored fewer than two candidates or all alike, it counts
    as 0, neither agreement nor its opposite.

    own_G: the live judge's scores in points; earlier_G: those by an earlier version; None without one.
    """
    both = zip(own_G, earlier_G, strict=True)
    pairs = [(own, earlier) for own, earlier in both if own is not None and earlier is not None]
    return ((kendall_tau_b(pairs) or 0.0) + 1) / 2
