"""Transfer: the win rate on each source of prompts, and the gap between the trained one and foreign ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.pairwise.records import Comparison
from dynalign.evaluation.pairwise.ties import rate_interval
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean, student_t


@dataclass(frozen=True, slots=True)
class SourceResult:
    """On one source: `SourceResult("wildchat.jsonl", Estimate(0.58, …), Estimate(0.09, …), 100)`."""

    source: str
    """The prompts' source."""
    win_rate: Estimate | None
    """On its prompts; None where no pair could be read."""
    gap: Estimate | None
    """Win rate on the training source minus this one; None for that source itself."""
    prompts: int
    """Prompts asked."""


def transfer(comparison: Comparison, home: str) -> tuple[SourceResult, ...]:
    """The win rate per source, in order of appearance. home: the source that the model was trained on."""
    sources = dict.fromkeys(row.prompt.source for row in comparison.compared)
    values = {source: _values(comparison, source) for source in sources}
    means = {source: clustered_mean(*found) for source, found in values.items()}
    at_home = means.get(home)
    return tuple(
        SourceResult(
            source,
            rate_interval(means[source]),
            None if source == home else difference(at_home, means[source]),
            sum(row.prompt.source == source for row in comparison.compared),
        )
        for source in sources
    )


def difference(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    """one - other, of independent means with intervals by Student's t; Welch's interval.

    None where one of them is missing; without an interval where one has none."""
    if one is None or other is None:
        return None
    mean = one.mean - other.mean
    parts = [_variance(each) for each in (one, other)]
    degrees = [(each.n or 0) - 1 for each in (one, other)]
    if min(degrees) < 1 or any(part is None for part in parts):
        return Estimate(mean)
    variances = [part or 0.0 for part in parts]
    total = sum(variances)
    if total == 0:
        return Estimate(mean, mean, mean)
    freedom = total**2 / sum(part**2 / free for part, free in zip(variances, degrees, strict=True))
    half = student_t(freedom) * math.sqrt(total)
    return Estimate(mean, mean - half, mean + half)


def _variance(estimate: Estimate) -> float | None:
    """Of the mean, from its interval."""
    if estimate.low is None or estimate.high is None or (estimate.n or 0) < 2:
        return None
    return ((estimate.high - estimate.low) / 2 / student_t((estimate.n or 0) - 1)) ** 2


def _values(comparison: Comparison, source: str) -> tuple[Sequence[float], Sequence[str]]:
    rows = [row for row in comparison.compared if row.prompt.source == source]
    kept = [(row.value, row.prompt.cluster) for row in rows if row.value is not None]
    return [value for value, _ in kept], [cluster for _, cluster in kept]
