"""Aspects: answers scored by each aspect of the value and as a whole, and what parts and whole share.

Within prompts: whether, of two answers to one prompt, the one that is better by an aspect is also better as a
whole. Between prompts: whether prompts whose answers score high by an aspect score high as a whole. The
whole is a score of its own, by its own rubric, and no sum of the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.statistics.correlation import between_clusters, within_clusters
from dynalign.evaluation.statistics.estimates import Estimate, clustered_mean

WHOLE = "whole"
"""The name of the score by the rubric of the whole value."""


@dataclass(frozen=True, slots=True)
class AspectRow:
    """One answer's scores.

    Example: `AspectRow("builtin/craft-004", "craft-004", "aligned", {"whole": 3.2, "power": 2.9, …})`.
    """

    prompt: str
    """Key of the prompt."""
    cluster: str
    """The unit of the intervals."""
    model: str
    """Who answered."""
    scores: dict[str, float | None]
    """Aspect, or `whole` → points, 0 to 5; None where there is no score."""


@dataclass(frozen=True, slots=True)
class AspectResult:
    """What became of one aspect: `AspectResult("power", Estimate(0.31, …), Estimate(0.62, …), …)`."""

    aspect: str
    """Its name; `whole` for the whole."""
    model: Estimate | None
    """Mean score of the model under test, in points."""
    against: Estimate | None
    """Of the other model."""
    change: Estimate | None
    """The difference, paired by prompt."""
    missing: int
    """Answers without this score."""


@dataclass(frozen=True, slots=True)
class AspectPair:
    """How two scores go together: `AspectPair("power", "whole", Estimate(0.4, …), Estimate(0.7, …))`."""

    first: str
    """One aspect."""
    second: str
    """Another, or `whole`."""
    within: Estimate | None
    """Pearson's correlation within prompts."""
    between: Estimate | None
    """Of the prompts' means."""


@dataclass(frozen=True, slots=True)
class Aspects:
    """All figures about aspects: `Aspects("gpt-oss-20b", (AspectResult(…),), (AspectPair(…),))`."""

    judge: str
    """Who scored."""
    results: tuple[AspectResult, ...]
    """The whole, then each aspect."""
    pairs: tuple[AspectPair, ...]
    """Each pair of scores."""


def aspects(judge: str, rows: Sequence[AspectRow], model: str, against: str, seed: int = 0) -> Aspects:
    """The figures of one judge's scores. model, against: the names whose change is shown."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    results = tuple(_result(rows, name, model, against) for name in names)
    pairs = tuple(
        _pair(rows, one, other, seed) for index, one in enumerate(names) for other in names[index + 1 :]
    )
    return Aspects(judge, results, pairs)


def _result(rows: Sequence[AspectRow], name: str, model: str, against: str) -> AspectResult:
    def scored(of: str) -> dict[str, tuple[float, str]]:
        return {
            row.prompt: (score, row.cluster)
            for row in rows
            if row.model == of and (score := row.scores.get(name)) is not None
        }

    ours = scored(model)
    theirs = scored(against)
    both = [key for key in ours if key in theirs]
    deltas = [ours[key][0] - theirs[key][0] for key in both]
    return AspectResult(
        name,
        _mean(list(ours.values())),
        _mean(list(theirs.values())),
        clustered_mean(deltas, [ours[key][1] for key in both]),
        sum(row.scores.get(name) is None for row in rows),
    )


def _mean(scored: Sequence[tuple[float, str]]) -> Estimate | None:
    return clustered_mean([score for score, _ in scored], [cluster for _, cluster in scored])


def _pair(rows: Sequence[AspectRow], one: str, other: str, seed: int) -> AspectPair:
    kept = [
        (a, b, row.prompt)
        for row in rows
        if (a := row.scores.get(one)) is not None and (b := row.scores.get(other)) is not None
    ]
    sides = ([row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept])
    return AspectPair(one, other, within_clusters(*sides, seed), between_clusters(*sides, seed))
