"""How evenly a set covers the values of an axis, such as its domains or regions."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AxisCoverage:
    """How evenly texts are spread over the values of one axis.

    Example, of a domain with two values: `AxisCoverage("domain", {"craft": 3, "care": 1}, 0.811, 0.5)`.
    """

    axis: str
    """Name of the axis."""
    counts: Mapping[str, int]
    """Value → texts, with the values that no text has."""
    entropy: float
    """Normalized entropy, 0 to 1: -Σ p ln p / ln K over the K values (Shannon 1948). 1 is even; also for one
    value, which leaves no choice."""
    smallest_share: float
    """Texts of the rarest value over the equal share n / K, 0 to 1."""


def coverage(axis: str, values: Sequence[str], known: Sequence[str] = ()) -> AxisCoverage:
    """The coverage of an axis by the value of each text.

    known: all values of the axis; those that no text has count as empty. Raises ValueError without values.
    """
    if not values:
        raise ValueError(f"the axis {axis} has no text")
    counted = Counter(values)
    counts = {value: counted[value] for value in (*known, *sorted(set(counted) - set(known)))}
    shares = [count / len(values) for count in counts.values() if count]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    even = math.log(len(counts)) if len(counts) > 1 else 0.0
    return AxisCoverage(
        axis,
        counts,
        min(1.0, entropy / even) if even else 1.0,
        min(counts.values()) * len(counts) / len(values),
    )


@dataclass(frozen=True)
class CrossedCounts:
    """Texts by the values of two axes: `CrossedCounts(("domain", "region"), {("craft", "Asia"): 3})`."""

    axes: tuple[str, str]
    """Names of the axes."""
    counts: Mapping[tuple[str, str], int]
    """Values of both → texts; pairs that no text has are left out."""


def crossed(axes: tuple[str, str], ones: Sequence[str], others: Sequence[str]) -> CrossedCounts:
    """Counts the texts by the values of two axes. Raises ValueError for sequences of different lengths."""
    return CrossedCounts(axes, Counter(zip(ones, others, strict=True)))
