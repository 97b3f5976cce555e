"""How much of the differences between a group's scores is more than the judge's own noise.

The advantage of GRPO is a difference of scores within a group. Its reliability is

    1 - σ²noise/σ²between

σ²noise is the variance of repeated scores of one candidate, σ²between that of single scores between the
candidates of a group. Estimated by one-way analysis of variance it is the intraclass correlation ICC(1,1) of
Shrout & Fleiss (1979, Psychological Bulletin 86:420), pooled over groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalign.evaluation.statistics.bootstrap import RESAMPLES, Floats, percentile_interval, with_ends
from dynalign.evaluation.statistics.estimates import Clusters, Estimate

WANTED = 0.8
"""A usual least reliability of a measurement from which single cases are compared."""


@dataclass(frozen=True)
class Reliability:
    """Of the scores within groups: `Reliability(Estimate(0.62, 0.48, 0.71, 16), 0.21, 0.34)`."""

    of_one: Estimate | None
    """1 - σ²noise/σ²between of single scores, 1 at most; None where no group's scores differ. It is below 0
    where repeats differ more than candidates do."""
    noise_std: float
    """σnoise in points."""
    between_std: float
    """σbetween in points; it contains the noise."""


def reliability(
    scores: Sequence[Sequence[Sequence[float | None]]],
    clusters: Clusters | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Reliability | None:
    """The reliability of scores in points, `scores[group][candidate][repeat]`, with a bootstrap interval.

    Every candidate has the same number of repeats, at least two; one with a missing score is left out.
    clusters: of each group, such as its prompt; None: every group for itself. None where no group has two
    candidates left. Raises ValueError for one repeat, or unequal numbers."""
    owners = range(len(scores)) if clusters is None else clusters
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    parts = np.zeros((len(numbers), 4))
    repeats = {len(candidate) for group in scores for candidate in group}
    if len(repeats) > 1 or min(repeats, default=2) < 2:
        raise ValueError(f"the same number of repeats is needed, at least two; got {sorted(repeats)}")
    for group, owner in zip(scores, owners, strict=True):
        whole = [[each for each in candidate if each is not None] for candidate in group]
        kept = np.array([candidate for candidate in whole if len(candidate) in repeats])
        if len(kept) > 1:
            parts[numbers[owner]] += _squares(kept)
    taking_part = parts[parts[:, 1] > 0]
    if not len(taking_part):
        return None
    times = repeats.pop()
    noise, between = (
        float(value) for value in np.ravel(_variances(np.ones((1, len(taking_part))), taking_part, times))
    )
    of_one = None
    if between > 0:
        ends = percentile_interval(
            lambda weights: _ratio(weights, taking_part, times), len(taking_part), seed, resamples
        )
        of_one = with_ends(1 - noise / between, ends, len(taking_part))
    return Reliability(of_one, math.sqrt(noise), math.sqrt(between))


def samples_needed(of_one: float | None, samples: int = 1, wanted: float = WANTED) -> int | None:
    """How many verdicts averaged per score would reach a wanted reliability, by Spearman and Brown.

    of_one: the reliability of a score that is the mean of `samples` verdicts. None where no number would
    reach it, because repeats differ as much as candidates do."""
    if of_one is None or of_one <= 0:
        return None
    if of_one >= 1:
        return 1
    factor = wanted * (1 - of_one) / (of_one * (1 - wanted))
    return max(1, math.ceil(samples * factor - 1e-9))


def _squares(scores_GR: Floats) -> tuple[float, float, float, float]:
    """Between candidates: sum of squares of single scores, degrees of freedom; the same within candidates."""
    candidates, repeats = scores_GR.shape
    means_G = scores_GR.mean(axis=1)
    between = repeats * float(((means_G - means_G.mean()) ** 2).sum())
    within = float(((scores_GR - means_G[:, None]) ** 2).sum())
    return between, candidates - 1, within, candidates * (repeats - 1)


def _variances(weights_BC: Floats, parts: Floats, repeats: int) -> tuple[Floats, Floats]:
    """(σ²noise, σ²between) for each row of weights of the clusters."""
    between, degrees_between, within, degrees_within = (weights_BC @ parts).T
    mean_between = between / degrees_between
    noise = within / degrees_within
    return noise, (mean_between + (repeats - 1) * noise) / repeats


def _ratio(weights_BC: Floats, parts: Floats, repeats: int) -> Floats:
    noise, between = _variances(weights_BC, parts, repeats)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(between > 0, 1 - noise / between, np.nan)
