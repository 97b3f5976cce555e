"""Symptoms of a judge that fails or is played, in the scores of a step: ends of the scale, what scores
correlate with, and how much of their variance is noise.
"""

import math
from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from dynalign.rollout.records import HIGHEST_SCORE

SATURATION_MARGIN = 0.1
"""Points from either end of the scale within which a score counts as saturated."""

Measured = Sequence[float | None]
"""One value per candidate; None where it was not measured."""


def score_saturation_fraction(scores: Measured) -> float | None:
    """Return the share of parsed scores within 0.1 points of 0 or of 5; None if no score is parsed."""
    parsed = [score for score in scores if score is not None]
    if not parsed:
        return None
    return fmean(not SATURATION_MARGIN < score < HIGHEST_SCORE - SATURATION_MARGIN for score in parsed)


def correlation(first: Measured, second: Measured) -> float | None:
    """Return Pearson's correlation of the pairs that are measured on both sides; None if either does not
    vary.

    Raises ValueError if the two sequences differ in length.
    """
    return within_group_correlation([first], [second])


def within_group_correlation(first_PG: Sequence[Measured], second_PG: Sequence[Measured]) -> float | None:
    """Return Pearson's correlation of the deviations from the groups' means; None if either does not vary
    within any group.

    Prompts differ in the scores and the lengths that they bring, and advantages do not see that: only what
    differs within a group is learned.

    Raises ValueError if the two differ in their numbers of groups or candidates.
    """
    deviations = [
        pair
        for first_G, second_G in zip(first_PG, second_PG, strict=True)
        for pair in _centred(first_G, second_G)
    ]
    first_spread = math.hypot(*(one for one, _ in deviations))
    second_spread = math.hypot(*(other for _, other in deviations))
    if not first_spread or not second_spread:
        return None
    covariance = math.fsum(one * other for one, other in deviations)
    return max(-1.0, min(1.0, covariance / (first_spread * second_spread)))


def _centred(first_G: Measured, second_G: Measured) -> list[tuple[float, float]]:
    """Return the measured pairs less their means; exactly 0 on a side whose values are equal."""
    pairs = [
        (float(one), float(other))
        for one, other in zip(first_G, second_G, strict=True)
        if one is not None and other is not None
    ]
    first = _deviations([one for one, _ in pairs])
    second = _deviations([other for _, other in pairs])
    return list(zip(first, second, strict=True))


def _deviations(values: Sequence[float]) -> list[float]:
    if len(set(values)) < 2:
        return [0.0] * len(values)  # the mean of equal numbers may differ from them by a rounding
    mean = fmean(values)
    return [value - mean for value in values]


def within_group_variance(scores_PG: Sequence[Measured]) -> float | None:
    """Return the variance of parsed scores within their groups, pooled over the groups, in points squared;
    None if no group has two.
    """
    groups = [[score for score in scores_G if score is not None] for scores_G in scores_PG]
    freedom = sum(len(group) - 1 for group in groups if group)
    if not freedom:
        return None
    deviations = chain.from_iterable(_deviations(group) for group in groups if group)
    return math.fsum(deviation**2 for deviation in deviations) / freedom


def advantage_reliability(
    variance: float | None, noise_std: float | None, no_signal_fraction: float | None
) -> float | None:
    """Return 1 - σ²noise / σ²between: the share of the variance within groups that is not the judge's noise;
    None if either is not known, or scores vary in no group.

    variance: within the trained groups, in points squared. noise_std: of a score that is given again, in
    points. no_signal_fraction: the share of the groups that were withheld because their scores differ by no
    more than noise; in these σ²noise is all there is. Without them the trained groups, which were selected
    for their spread, would always look reliable.
    """
    if variance is None or noise_std is None:
        return None
    noise = noise_std**2
    withheld = no_signal_fraction or 0.0
    between = (1.0 - withheld) * variance + withheld * noise
    return 1.0 - noise / between if between else None
