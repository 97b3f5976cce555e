"""Two symptoms of a failing judge: scores at the ends of the scale, and scores that correlate with the
answer's length.
"""

import math
from collections.abc import Sequence
from statistics import fmean

from dynalign.rollout.records import HIGHEST_SCORE

SATURATION_MARGIN = 0.1
"""Points from either end of the scale within which a score counts as saturated."""


def score_saturation_fraction(scores: Sequence[float | None]) -> float | None:
    """Return the share of parsed scores within 0.1 points of 0 or of 5; None if no score is parsed."""
    parsed = [score for score in scores if score is not None]
    if not parsed:
        return None
    return fmean(not SATURATION_MARGIN < score < HIGHEST_SCORE - SATURATION_MARGIN for score in parsed)


def score_length_correlation(scores: Sequence[float | None], lengths: Sequence[int]) -> float | None:
    """Return Pearson's correlation of parsed scores with answer lengths; None if either does not vary.

    Raises ValueError if the two sequences differ in length.
    """
    pairs = [
        (score, float(length)) for score, length in zip(scores, lengths, strict=True) if score is not None
    ]
    if len({score for score, _ in pairs}) < 2 or len({length for _, length in pairs}) < 2:
        return None
    mean_score = fmean(score for score, _ in pairs)
    mean_length = fmean(length for _, length in pairs)
    covariance = math.fsum((score - mean_score) * (length - mean_length) for score, length in pairs)
    score_spread = math.hypot(*(score - mean_score for score, _ in pairs))
    length_spread = math.hypot(*(length - mean_length for _, length in pairs))
    return max(-1.0, min(1.0, covariance / (score_spread * length_spread)))
