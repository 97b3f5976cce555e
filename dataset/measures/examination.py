"""All measures of one or several sets, compared with each other and with what they must not repeat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dynalign.dataset.measures.contamination import EvaluationGrams, Leak, leaks
from dynalign.dataset.measures.coverage import AxisCoverage, coverage
from dynalign.dataset.measures.diversity import MOST_SAMPLED, Diversity, diversity
from dynalign.dataset.measures.names import CommonName, common_names
from dynalign.dataset.measures.near_duplicates import NearDuplicate, near_duplicates
from dynalign.dataset.measures.neighbours import Neighbour, evenly_spaced, neighbours
from dynalign.dataset.measures.words import words

MOST_COMPARED = 200_000
"""Texts among which near-duplicates are looked for; of more, so many are taken, evenly spaced. They take
about 1 GB. Exact repeats and n-grams are looked for in all."""


@dataclass(frozen=True, slots=True)
class WordCounts:
    """Words of a text, over a set: `WordCounts(4, 11, 27.0, 29.4, 55, 310)`."""

    least: int
    """The shortest text."""
    p5: int
    """5 % of the texts have no more."""
    median: float
    """Half of the texts have no more."""
    mean: float
    """The mean."""
    p95: int
    """95 % of the texts have no more."""
    most: int
    """The longest text."""


@dataclass(frozen=True)
class GivenSet:
    """A set to examine: `GivenSet("tasks.csv", ("How …", …), {"domain": ("craft", …)})`."""

    name: str
    """Its name for people."""
    texts: tuple[str, ...]
    """Its texts, in their order; at least one."""
    axes: Mapping[str, tuple[str, ...]]
    """Axis → the value of each text; empty where none is known."""
    known: Mapping[str, tuple[str, ...]]
    """Axis → all values that it has, beyond those of the texts."""
    holds: tuple[str, ...] = ()
    """Evaluation sets that are a part of it, with which it is not compared."""


@dataclass(frozen=True)
class ExaminedSet:
    """What was found about one set.

    Example: `ExaminedSet("tasks.csv", 1204, 1198, WordCounts(…), (), (CommonName(…),), Diversity(…), (),
    1204, (), ())`.
    """

    name: str
    """Its name for people."""
    texts: int
    """How many texts it has."""
    distinct: int
    """How many of them differ in their words."""
    word_counts: WordCounts
    """How long they are."""
    axes: tuple[AxisCoverage, ...]
    """How evenly each axis is covered."""
    names: tuple[CommonName, ...]
    """The most frequent names."""
    diversity: Diversity | None
    """On samples of the same size as the sets beside it; None for sets of fewer than two texts."""
    near_duplicates: tuple[NearDuplicate, ...]
    """Texts that are near to an earlier one of the set, to one of the sets before it, or to a reference."""
    compared: int
    """Texts among which they were looked for."""
    leaks: tuple[Leak, ...]
    """Texts that hold a part of an evaluation set."""
    nearest: tuple[Neighbour, ...]
    """The most similar other text of each text."""


def examine(
    sets: Sequence[GivenSet],
    evaluation: Mapping[str, Sequence[str]],
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[ExaminedSet, ...]:
    """Examines sets, each with the ones before it as earlier sets.

    evaluation: name → texts of evaluation sets and held-out splits. progress: called now and then with the
    number of texts that were compared. Raises ValueError for a set without texts.
    """
    size = min([MOST_SAMPLED, *(len(each.texts) for each in sets)])
    every = EvaluationGrams(evaluation)
    earlier: dict[str, Sequence[str]] = {}
    found: list[ExaminedSet] = []
    for each in sets:
        foreign = {name: texts for name, texts in evaluation.items() if name not in each.holds}
        grams = EvaluationGrams(foreign) if each.holds else every
        chosen = evenly_spaced(len(each.texts), MOST_COMPARED)
        compared = [each.texts[number] for number in chosen]
        near = near_duplicates(compared, foreign | earlier, progress)
        found.append(
            ExaminedSet(
                name=each.name,
                texts=len(each.texts),
                distinct=len({" ".join(words(text)) or text.strip() for text in each.texts}),
                word_counts=word_counts(each.texts),
                axes=tuple(
                    coverage(axis, values, each.known.get(axis, ())) for axis, values in each.axes.items()
                ),
                names=common_names(each.texts),
                diversity=diversity(each.texts, size) if size > 1 else None,
                near_duplicates=tuple(_renumbered(one, chosen) for one in near),
                compared=len(compared),
                leaks=tuple(leaks(each.texts, grams)),
                nearest=neighbours(each.texts),
            )
        )
        earlier[each.name] = compared
    return tuple(found)


def _renumbered(found: NearDuplicate, chosen: Sequence[int]) -> NearDuplicate:
    """With the numbers of the texts in their set instead of among the chosen ones."""
    twin = found.twin
    if not twin.source:
        twin = type(twin)("", chosen[twin.number], twin.similarity)
    return NearDuplicate(chosen[found.number], twin)


def word_counts(texts: Sequence[str]) -> WordCounts:
    """How many words the texts have, separated by white space. Raises ValueError without texts."""
    if not texts:
        raise ValueError("a set has at least one text")
    counts = sorted(len(text.split()) for text in texts)
    middle = (counts[(len(counts) - 1) // 2] + counts[len(counts) // 2]) / 2
    p5, p95 = (counts[min(len(counts) - 1, len(counts) * percent // 100)] for percent in (5, 95))
    return WordCounts(counts[0], p5, middle, fmean(counts), p95, counts[-1])
