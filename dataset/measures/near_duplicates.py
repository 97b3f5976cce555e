"""Near-duplicates: texts that share most of their words and pairs of words.

MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3)
proposes candidates, by the library rensa; the exact Jaccard similarity of the two texts decides. So chance
can only miss a near-duplicate, never make one. Paraphrases share few words and are not seen.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import xxhash
from rensa import RMinHash, RMinHashLSH

from dynalign.dataset.measures.words import words

THRESHOLD = 0.6
"""Least Jaccard similarity of near-duplicates. Of 5,000 random edits of a tenth of the words, the worst
left 0.62; of the shipped prompts, no two are above 0.25."""
PERMUTATIONS = 128
"""Hash functions of a signature."""
BANDS = 32
"""Bands of four hashes: a pair with similarity s is a candidate with probability 1 - (1 - s^4)^32, which is
0.9998 at 0.70 and 0.003 at 0.10."""
_SEED = 20
_EVERY = 1_000

Shingles = frozenset[int]
"""64-bit hashes of the words and pairs of words of a text."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The text that another one is near to: `Twin("builtin", 17, 0.81)`."""

    source: str
    """Name of its set; empty for the set that is examined."""
    number: int
    """Its index in that set, from 0."""
    similarity: float
    """Exact Jaccard similarity, THRESHOLD to 1."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A text that is left out: `NearDuplicate(40, Twin("", 17, 0.81))`."""

    number: int
    """Its index in the examined set, from 0."""
    twin: Twin
    """The most similar text that is kept."""


def shingles(text: str) -> Shingles:
    """The hashed words and pairs of neighbouring words; of a text without words, the text itself."""
    found = words(text) or [text.strip()]
    pairs = [f"{one} {other}" for one, other in zip(found, found[1:], strict=False)]
    return frozenset(xxhash.xxh64_intdigest(each.encode("utf-8", "replace")) for each in (*found, *pairs))


def jaccard(one: Shingles, other: Collection[int]) -> float:
    """|A ∩ B| / |A ∪ B|, 0 to 1. other: shingles, each once."""
    both = len(one.intersection(other))
    return both / (len(one) + len(other) - both)


class NearDuplicateIndex:
    """Texts among which near-duplicates are looked for. What it finds depends on the order of `add` alone.

    A text takes about 4 KB. threshold: least Jaccard similarity.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._bands = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._texts: list[tuple[str, int, array[int]]] = []

    def add(self, source: str, number: int, text: str) -> None:
        """Takes in a text. source, number: how it is named in a `Twin`."""
        self._insert(source, number, shingles(text))

    def nearest(self, text: str) -> Twin | None:
        """The most similar text that reaches the threshold, the first one of several; None without one."""
        return self._nearest(shingles(text))

    def add_if_new(self, source: str, number: int, text: str) -> Twin | None:
        """`nearest`, and `add` where there is none."""
        found = shingles(text)
        twin = self._nearest(found)
        if twin is None:
            self._insert(source, number, found)
        return twin

    def _insert(self, source: str, number: int, found: Shingles) -> None:
        self._bands.insert(len(self._texts), _signature(found))
        self._texts.append((source, number, array("Q", found)))  # a tenth of the set's size

    def _nearest(self, found: Shingles) -> Twin | None:
        best: Twin | None = None
        for candidate in sorted(self._bands.query(_signature(found))):
            source, number, other = self._texts[candidate]
            similarity = jaccard(found, other)
            if similarity >= self._threshold and (best is None or similarity > best.similarity):
                best = Twin(source, number, similarity)
        return best


def _signature(found: Shingles) -> RMinHash:
    signature = RMinHash(num_perm=PERMUTATIONS, seed=_SEED)
    signature.update([f"{each:x}" for each in found])
    return signature


def near_duplicates(
    texts: Iterable[str],
    references: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[NearDuplicate]:
    """The texts to leave out, in their order: near to a reference, or to an earlier text that is kept.

    One pass, in the order of the texts; the same texts give the same answer. references: name → texts of an
    earlier set, a held-out split, an evaluation set. progress: called now and then with the number of texts
    that were examined.
    """
    index = NearDuplicateIndex()
    for source, others in (references or {}).items():
        for number, text in enumerate(others):
            index.add_if_new(source, number, text)
    found: list[NearDuplicate] = []
    for number, text in enumerate(texts):
        if number % _EVERY == 0:
            progress(number)
        twin = index.add_if_new("", number, text)
        if twin is not None:
            found.append(NearDuplicate(number, twin))
    return found
