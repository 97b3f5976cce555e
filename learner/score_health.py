"""Two signs of a judge that goes wrong: scores at the ends of the scale, and scores that follow the answer's length."""

import math
from collections.abc import Sequence
from statistics import fmean

from dynalign.rollout.records import HIGHEST_SCORE

SATURATION_MARGIN = 0.1
"""Points from either end of the scale within which a score counts as saturated."""


def score_saturation_fraction(scores: Sequence[float | None]) -> float | None:
    """The share of parsed scores within 0.1 of 0 or of 5; None when nothing is parsed."""
    parsed = [score for score in scores if score is not None]
    if not parsed:
        return None
    return fmean(not SATURATION_MARGIN < score < HIGHEST_SCORE - SATURATION_MARGIN for score in parsed)


def score_length_correlation(scores: Sequence[float | None], lengths: Sequence[int]) -> float | None:
    """Pearson's correlation of parsed scores with answer lengths; None where one of them does not vary.

    :raises ValueError: sequences of different lengths.
    """
    pairs = [
        (score, float(length)) for score, length in zip(scores, lengths, strict=True) if score is not None
    ]
    if len({score for score, _ in pairs}) < 2 or len({length for _, length in pairs}) < 2:
        return None
    mean_score, mean_length = fmean(score for score, _ in pairs), fmean(length for _, length in pairs)
    covariance = math.fsum((score - mean_score) * (length - mean_length) for score, length in pairs)
    spread = math.hypot(*(s - mean_score for s, _ in pairs)) * math.hypot(
        *(n - mean_length for _, n in pairs)
    )
    return max(-1.0, min(1.0, covariance / spread))
