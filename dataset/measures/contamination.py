"""Contamination: n-grams of evaluation sets that stand in training prompts.

13 words in a row, after normalization (Brown et al. 2020, arXiv 2005.14165, appendix C, uses 13 and, for
short items, no fewer than 8). The words are compared without the spaces between them, so that `e-mail`,
`e mail` and `email` are one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dynalign.dataset.measures.words import words

GRAM_WORDS = 13
"""Words of an n-gram."""
FEWEST_WORDS = 8
"""A shorter item is found only in a prompt that consists of it."""
_KEY = 13
"""Characters by which n-grams are looked up: no 13 words are shorter."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A prompt that holds a part of an evaluation set.

    Example: `Leak(3, "ifeval", 12, "write a 300 word summary of the wikipedia page …")`.
    """

    number: int
    """Index of the prompt, from 0."""
    source: str
    """Name of the evaluation set."""
    item: int
    """Index of the item in that set, from 0."""
    words: str
    """The n-gram, normalized."""


class EvaluationGrams:
    """The n-grams of evaluation sets. About 200 bytes per word of them.

    sets: name → texts of its items.
    """

    def __init__(self, sets: Mapping[str, Sequence[str]]) -> None:
        self._names = tuple(sets)
        self._items: list[tuple[str, int, list[str]]] = []
        self._joined: list[str] = []
        self._grams: dict[str, list[tuple[int, int, int]]] = {}
        """First characters → (item, first character, first word) of each n-gram."""
        self._whole: dict[str, int] = {}
        """Short items, without spaces → their number."""
        for name, texts in sets.items():
            for number, text in enumerate(texts):
                self._add(name, number, words(text))

    @property
    def names(self) -> tuple[str, ...]:
        """The evaluation sets."""
        return self._names

    def _add(self, name: str, number: int, found: list[str]) -> None:
        if not found:
            return
        item = len(self._items)
        joined = "".join(found)
        self._items.append((name, number, found))
        self._joined.append(joined)
        if len(found) < FEWEST_WORDS or len(joined) < _KEY:
            self._whole.setdefault(joined, item)
            return
        start = 0
        for first in range(max(1, len(found) - GRAM_WORDS + 1)):
            key = joined[start : start + _KEY]
            if len(key) == _KEY:
                self._grams.setdefault(key, []).append((item, start, first))
            start += len(found[first])

    def leak(self, number: int, text: str) -> Leak | None:
        """The first n-gram of the sets that a prompt holds; None if it is clean. number: the prompt's."""
        joined = "".join(words(text))
        item = self._whole.get(joined)
        if item is not None:
            return self._found(number, item, 0)
        for start in range(len(joined) - _KEY + 1):
            for item, begin, first in self._grams.get(joined[start : start + _KEY], ()):
                gram = self._gram(item, first)
                if joined.startswith(self._joined[item][begin : begin + sum(map(len, gram))], start):
                    return self._found(number, item, first)
        return None

    def _gram(self, item: int, first: int) -> list[str]:
        return self._items[item][2][first : first + GRAM_WORDS]

    def _found(self, number: int, item: int, first: int) -> Leak:
        name, place, _ = self._items[item]
        return Leak(number, name, place, " ".join(self._gram(item, first)))


def leaks(texts: Iterable[str], sets: EvaluationGrams) -> Iterator[Leak]:
    """The prompts that hold a part of an evaluation set, in their order, each once."""
    for number, text in enumerate(texts):
        found = sets.leak(number, text)
        if found is not None:
            yield found
