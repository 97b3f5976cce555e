"""The scales of a chart: ticks, ranges, and how many points of a long run are drawn."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.data import Curve

T = TypeVar("T")

LONGEST_LINE = 600
"""Points drawn per line; a longer one keeps the extremes of each stretch, so that no spike disappears."""
MOST_COLUMNS = 60
"""Columns of a heat map or bar chart; in a longer run, neighbouring steps share one."""


def nice_ticks(low: float, high: float) -> tuple[float, ...]:
    """Two to seven ticks that enclose [low, high], at multiples of 1, 2, 2.5 or 5 times a power of ten."""
    raw = max((high - low) / 5, 1e-9 * max(abs(low), abs(high)), 1e-15)  # finer differences are rounding
    power = 10.0 ** math.floor(math.log10(raw))
    gap = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.floor(low / gap + 1e-9)
    last = math.ceil(high / gap - 1e-9)
    return tuple(float(f"{index * gap:.12g}") for index in range(first, max(last, first + 1) + 1))


def step_ticks(low: float, high: float) -> list[int]:
    """At most nine whole steps within [low, high], at multiples of 1, 2 or 5 times a power of ten."""
    gap = next(
        factor * 10**power
        for power in range(18)
        for factor in (1, 2, 5)
        if (high - low) / (factor * 10**power) <= 8
    )
    return list(range(math.ceil(low / gap) * gap, math.floor(high) + 1, gap))


def span(low: float, high: float) -> tuple[float, float]:
    """The ends of the x axis: half a step to either side of a single one."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def y_range(estimates: Sequence[Estimate], anchors: Sequence[float]) -> tuple[float, float]:
    """The range of the means, anchors and intervals.

    A very wide interval, from few parts, is cut off, since including it would flatten every line.
    """
    means = [*(estimate.mean for estimate in estimates), *anchors]
    low = min(means)
    high = max(means)
    if low == high:
        margin = 0.1 * abs(high) or 0.5
        return (low if low in anchors else low - margin), high + margin
    lows = [estimate.low for estimate in estimates if estimate.low is not None]
    highs = [estimate.high for estimate in estimates if estimate.high is not None]
    return max(min([low, *lows]), 2 * low - high), min(max([high, *highs]), 2 * high - low)


def binned(steps: Sequence[T], most: int = MOST_COLUMNS) -> list[Sequence[T]]:
    """Neighbouring steps put together, so that at most `most` columns remain."""
    size = math.ceil(len(steps) / most) or 1
    return [steps[start : start + size] for start in range(0, len(steps), size)]


def running_mean(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean of each point and its neighbours, a twentieth of the line together; at the ends of fewer.

    Returns at most LONGEST_LINE points.
    """
    total = len(points)
    reach = total // 40
    sums = [0.0, *accumulate(value for _, value in points)]
    found: list[tuple[int, float]] = []
    for index in range(0, total, math.ceil(total / LONGEST_LINE)):
        first = max(0, index - reach)
        last = min(total, index + reach + 1)
        found.append((points[index][0], (sums[last] - sums[first]) / (last - first)))
    return found


def thinned(curve: Curve) -> Curve:
    """At most about LONGEST_LINE points of a curve: its ends, and the lowest and highest of each stretch."""
    if len(curve) <= LONGEST_LINE:
        return curve
    kept: set[int] = {0, len(curve) - 1}
    for stretch in binned(range(len(curve)), LONGEST_LINE // 2):
        kept |= {min(stretch, key=lambda i: curve[i][1].mean), max(stretch, key=lambda i: curve[i][1].mean)}
    return [curve[index] for index in sorted(kept)]
