"""Whether a model has lost anything against another, item by item: non-inferior, inferior, or inconclusive.

Per item, d is the difference of the two models' scores, each averaged over K repeats, in [-1, 1]. Its mean is
the gain less the loss, g - l with g = mean max(d, 0) and l = mean max(-d, 0). An item does not have both, so
their covariance over items is -g·l. Each has Wilson's score interval with the effective number of items
n·p(1 - p)/variance and Student's t (as `auc.share_interval`), and the bound of the difference is (MOVER:
Zou & Donner 2008, Statistics in Medicine 27:1693)

    lower = g - l - √((g - g_low)² + (l_high - l)² - 2ρ(g - g_low)(l_high - l)),   ρ = corr(g, l)

Where many items change it is the bound of the paired t test. Where few do, that test is too sure: one loss
in thirty items has a standard error of 3.3 points, and none at all has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.evaluation.statistics.noninferiority_plan import LEVEL

Floats = NDArray[np.float64]
Verdict = Literal["non-inferior", "inferior", "inconclusive"]
_MOST_T = 1e3
"""A quantile beyond which a p-value is 0 for every use."""
_HALVINGS = 60
"""From `_MOST_T` to below 1e-14."""


@dataclass(frozen=True)
class NonInferiority:
    """One task's answer to "was anything lost?".

    Example: `NonInferiority(Estimate(-0.01, -0.04, 0.02, 541), -0.033, 0.04, 0.014, 0.028, "non-inferior")`.
    """

    difference: Estimate
    """Mean over items of the model's score less the other's, with the ends of the two-sided 95 % interval."""
    bound: float
    """Lower end of the one-sided 95 % interval."""
    margin: float
    """The loss that would still be called none, as a share: 0.04 are 4 points."""
    p: float
    """Of the hypothesis that the loss is the margin or more. 1 - p is that of the opposite one."""
    p_holm: float
    """`p` adjusted for all tasks of the suite (Holm 1979)."""
    verdict: Verdict
    """`non-inferior`: `p_holm` is at most 5 %, so the bound lies above the margin. `inferior`: the loss is
    larger than the margin, by the same rule. `inconclusive`: neither is shown."""


class _Parts:
    """Gain and loss of rows of differences (…, N): all that bounds are computed from."""

    def __init__(self, differences: Floats) -> None:
        if differences.shape[-1] < 2 or np.isnan(differences).any() or np.abs(differences).max() > 1:
            raise ValueError("two items or more are needed, with differences between -1 and 1")
        self.items = differences.shape[-1]
        gains = np.maximum(differences, 0)
        losses = np.maximum(-differences, 0)
        self.gain: Floats = gains.mean(axis=-1)
        self.loss: Floats = losses.mean(axis=-1)
        gain_variance = (gains**2).mean(axis=-1) - self.gain**2
        loss_variance = (losses**2).mean(axis=-1) - self.loss**2
        self._gain_items = _effective(self.gain, gain_variance, self.items)
        self._loss_items = _effective(self.loss, loss_variance, self.items)
        spread = np.sqrt(np.maximum(gain_variance * loss_variance, 0))
        both = self.gain * self.loss
        self._correlation: Floats = -np.divide(both, spread, out=np.zeros_like(both), where=spread > 1e-15)

    @property
    def mean(self) -> Floats:
        """The mean differences."""
        return self.gain - self.loss

    def lower(self, t: Floats) -> Floats:
        """The lower bounds at quantiles t ≥ 0."""
        down = self.gain - _wilson(self.gain, self._gain_items, -t)
        up = _wilson(self.loss, self._loss_items, t) - self.loss
        bound: Floats = self.mean - np.sqrt(
            np.maximum(down**2 + up**2 - 2 * self._correlation * down * up, 0)
        )
        return bound

    def upper(self, t: Floats) -> Floats:
        """The upper bounds at quantiles t ≥ 0."""
        up = _wilson(self.gain, self._gain_items, t) - self.gain
        down = self.loss - _wilson(self.loss, self._loss_items, -t)
        bound: Floats = self.mean + np.sqrt(
            np.maximum(down**2 + up**2 - 2 * self._correlation * down * up, 0)
        )
        return bound


def _effective(share: Floats, variance: Floats, items: int) -> Floats:
    """n·p(1 - p)/variance: n for one repeat, more where repeats were averaged; n where nothing varies."""
    spread = share * (1 - share)
    ratio = np.divide(spread, variance, out=np.ones_like(spread), where=variance > 1e-15)
    effective: Floats = items * np.maximum(ratio, 1.0)
    return effective


def _wilson(share: Floats, items: Floats, t: Floats) -> Floats:
    """The end of Wilson's score interval at the signed quantile t."""
    half = t * np.sqrt(np.maximum(share * (1 - share) / items + t**2 / (4 * items**2), 0))
    ends: Floats = (share + t**2 / (2 * items) + half) / (1 + t**2 / items)
    return np.clip(ends, 0.0, 1.0)


def lower_bounds(differences_SN: Floats, level: float = LEVEL) -> Floats:
    """The one-sided lower bounds of the mean of each row, at 1 - level."""
    parts = _Parts(differences_SN)
    return parts.lower(np.asarray(_quantile(1 - level, parts.items - 1)))


def p_values(differences_SN: Floats, margin: float) -> Floats:
    """For each row the p-value of "the loss is `margin` or more": the level at which its bound is -margin.

    Raises ValueError for fewer than two items, or differences that are not between -1 and 1."""
    from scipy.special import stdtr

    parts = _Parts(differences_SN)
    above = parts.mean > -margin
    low = np.zeros_like(parts.mean)
    high = np.full_like(parts.mean, _MOST_T)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        still = np.where(above, parts.lower(middle) > -margin, parts.upper(middle) < -margin)
        low = np.where(still, middle, low)
        high = np.where(still, high, middle)
    found: Floats = stdtr(parts.items - 1, np.where(above, -low, low))
    return found


def holm(p_T: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject each that is at most the level of the family.

    Sorted ascending, the adjusted i-th (from 0) is the largest of (m - j)·p_j, j ≤ i, and at most 1."""
    adjusted = [1.0] * len(p_T)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_T)), key=lambda index: p_T[index])):
        largest = max(largest, min(1.0, (len(p_T) - place) * p_T[index]))
        adjusted[index] = largest
    return adjusted


def noninferiority(tasks: Sequence[tuple[Sequence[float], float]]) -> list[NonInferiority]:
    """The answers of a suite, with Holm's correction over it.

    tasks: for each the differences of its items, averaged over repeats, and its margin. Raises ValueError as
    `p_values` does."""
    arrays = [np.asarray(differences, dtype=np.float64) for differences, _ in tasks]
    p_T = [float(p_values(array, margin)) for array, (_, margin) in zip(arrays, tasks, strict=True)]
    worse_T = holm([1 - p for p in p_T])
    return [
        _answer(array, margin, p, p_holm, p_worse)
        for array, (_, margin), p, p_holm, p_worse in zip(arrays, tasks, p_T, holm(p_T), worse_T, strict=True)
    ]


def _answer(differences_N: Floats, margin: float, p: float, p_holm: float, p_worse: float) -> NonInferiority:
    parts = _Parts(differences_N)
    two_sided = np.asarray(_quantile(1 - LEVEL / 2, parts.items - 1))
    low = float(parts.lower(two_sided))
    difference = Estimate(float(parts.mean), low, float(parts.upper(two_sided)), parts.items)
    verdict: Verdict = "inconclusive"
    if p_holm <= LEVEL:
        verdict = "non-inferior"
    elif p_worse <= LEVEL:
        verdict = "inferior"
    return NonInferiority(difference, float(lower_bounds(differences_N)), margin, p, p_holm, verdict)


def _quantile(probability: float, degrees: int) -> float:
    # Not at the head: SciPy takes a second to load.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
