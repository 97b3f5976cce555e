"""The most similar other text of each text of a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from dynalign.dataset.measures.near_duplicates import shingles

MOST_TEXTS = 5_000
"""Every two texts are compared: of more texts, so many are taken, evenly spaced."""
_ROWS = 256
"""Texts compared with all others at once."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A text with the one that is most like it: `Neighbour(3, 17, 0.42)`."""

    number: int
    """Index of the text, from 0."""
    other: int
    """Index of the most similar other text."""
    similarity: float
    """Jaccard similarity of their words and pairs of words, 0 to 1, as for near-duplicates."""


def neighbours(texts: Sequence[str]) -> tuple[Neighbour, ...]:
    """The nearest other text of each text, in their order, the first of equally near ones.

    Empty for one text.
    """
    from scipy.sparse import csr_matrix

    chosen = evenly_spaced(len(texts), MOST_TEXTS)
    if len(chosen) < 2:
        return ()
    sets = [shingles(texts[number]) for number in chosen]
    sizes = np.array([len(each) for each in sets])
    hashes = np.fromiter(chain.from_iterable(sets), dtype=np.uint64, count=int(sizes.sum()))
    _, columns = np.unique(hashes, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ones = np.ones(len(columns), dtype=np.float32)
    rows = csr_matrix((ones, columns, starts), shape=(len(sets), int(columns.max()) + 1))
    turned = rows.T.tocsr()
    found: list[Neighbour] = []
    for start in range(0, len(sets), _ROWS):
        common = np.asarray((rows[start : start + _ROWS] @ turned).toarray(), dtype=np.float64)
        similar = common / (sizes[start : start + _ROWS, None] + sizes[None, :] - common)
        own = np.arange(len(similar))
        similar[own, start + own] = -1.0
        nearest = similar.argmax(axis=1)
        found += [
            Neighbour(chosen[start + row], chosen[int(other)], float(similar[row, other]))
            for row, other in enumerate(nearest)
        ]
    return tuple(found)


def evenly_spaced(count: int, most: int) -> list[int]:
    """`most` of the numbers below `count`, evenly spaced; all of them where there are no more."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]
