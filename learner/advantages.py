"""Group-relative advantages: how much better a candidate scored than its siblings.

GRPO (arXiv 2402.03300) divides by the group's standard deviation; Dr. GRPO (arXiv 2503.20783) does not
divide.
"""

import math
from collections.abc import Sequence
from itertools import chain
from statistics import mean, stdev
from typing import Literal

Scale = Literal["group", "batch", "none"]

STD_FLOOR = 1e-4
"""Points added to the standard deviation, which bounds the advantages of a group whose scores hardly
differ."""


def _parsed(scores: Sequence[float | None]) -> list[float]:
    parsed = [score for score in scores if score is not None]
    if not all(map(math.isfinite, parsed)):
        raise ValueError(f"scores must be finite; got {parsed}")
    return parsed


def batch_std(scores_PG: Sequence[Sequence[float | None]]) -> float:
    """Return the standard deviation (n - 1) of all parsed scores of the batch, in points; 0 with fewer than
    two.

    scores_PG: scores in points, one row per prompt; None for an unparsed candidate.

    Raises ValueError if a score is not finite.
    """
    parsed = _parsed(list(chain.from_iterable(scores_PG)))
    return stdev(parsed) if len(parsed) > 1 else 0.0


def group_advantages(
    scores_G: Sequence[float | None], scale: Scale, batch_std: float | None = None
) -> list[float]:
    """Return A_i = (r_i - mean r) / (std r + 1e-4) over the parsed candidates of one group (GRPO, arXiv
    2402.03300).

    scores_G: scores in points. None marks an unparsed candidate: its advantage is 0, and it counts neither in
    the mean nor in the standard deviation.
    scale: which standard deviation divides: ``group`` (n - 1), ``batch`` (passed as `batch_std`), or
    ``none``, which does not divide (Dr. GRPO, arXiv 2503.20783).
    batch_std: in points, from the function of that name.

    Raises ValueError if a score is not finite, or if `scale` is ``batch`` and `batch_std` is None.
    """
    parsed = _parsed(scores_G)
    if len(parsed) < 2:
        return [0.0] * len(scores_G)
    # statistics.mean is exact before its one rounding: equal scores have advantage 0, not 1e-16 / 1e-4.
    baseline = mean(parsed)
    if scale == "none":
        divisor = 1.0
    elif scale == "group":
        divisor = stdev(parsed) + STD_FLOOR
    elif batch_std is None:
        raise ValueError('scale="batch" needs the standard deviation of the batch')
    else:
        divisor = batch_std + STD_FLOOR
    return [0.0 if score is None else (score - baseline) / divisor for score in scores_G]
