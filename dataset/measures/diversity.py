"""How varied the wording of a set is: Vendi score, compression ratio, self-BLEU.

All three depend on the number of texts. So sets are compared by samples of one size, drawn without
replacement, and each figure is the mean over the draws with their range.
"""

import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynalign.dataset.measures.words import words

DRAWS = 10
"""Samples of a set."""
MOST_SAMPLED = 200
"""Texts of a sample, at most: the Vendi score takes time in the cube of it."""
BLEU_ORDER = 4
_VENDI_ORDERS = (1, 2)
_NO_MATCH = 0.1
"""Stands for no common n-gram: smoothing method 1 of Chen and Cherry 2014."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several samples of a set: `Spread(98.1, 96.0, 99.9)`."""

    mean: float
    """Mean over the samples."""
    low: float
    """The smallest."""
    high: float
    """The largest."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """How varied samples of a set are.

    Example: `Diversity(200, Spread(190, 188, 192), Spread(2.3, 2.2, 2.4), Spread(0.12, 0.11, 0.13))`.
    """

    size: int
    """Texts of a sample; only figures of one size can be compared."""
    vendi: Spread
    """Vendi score, 1 to `size`: as if there were so many wholly different texts."""
    compression: Spread
    """Compression ratio, above 0: higher is more repetitive."""
    self_bleu: Spread
    """Self-BLEU, 0 to 1: higher is more repetitive."""


def diversity(texts: Sequence[str], size: int = MOST_SAMPLED, draws: int = DRAWS, seed: int = 0) -> Diversity:
    """The figures of samples of a set. size: texts of a sample, as many as there are where it is more.

    Raises ValueError with fewer than two texts.
    """
    size = min(size, len(texts))
    if size < 2:
        raise ValueError(f"diversity is of at least two texts, not {size}")
    chance = random.Random(seed)
    samples = [chance.sample(texts, size) for _ in range(draws if size < len(texts) else 1)]
    split = [[words(text) for text in sample] for sample in samples]
    return Diversity(
        size,
        _spread([vendi_score(each) for each in split]),
        _spread([compression_ratio(sample) for sample in samples]),
        _spread([self_bleu(each) for each in split]),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(math.fsum(values) / len(values), min(values), max(values))


def vendi_score(texts: Sequence[Sequence[str]]) -> float:
    """exp(-Σ λ ln λ) over the eigenvalues λ of K / n.

    Friedman and Dieng 2023, arXiv 2210.02410, definition 3.1.

    texts: each as its words. K is the mean of the cosines of two texts' counts of words and of pairs of
    words: no embedding, so that it needs no model; a paraphrase counts as another text.
    """
    kernel = np.mean([_cosines(texts, order) for order in _VENDI_ORDERS], axis=0)
    eigenvalues = np.linalg.eigvalsh(kernel / len(texts))
    positive = eigenvalues[eigenvalues > 1e-12]  # rounding leaves some just below zero
    return float(np.exp(-np.sum(positive * np.log(positive))))


def _cosines(texts: Sequence[Sequence[str]], order: int) -> NDArray[np.float64]:
    """The cosine of each two texts' counts of n-grams; a shorter text is one n-gram. Shape (texts, texts)."""
    # Not at the head: SciPy takes a second to load.
    from scipy.sparse import csr_matrix

    column: dict[tuple[str, ...], int] = {}
    places: list[tuple[int, int]] = []
    values: list[float] = []
    for row, text in enumerate(texts):
        counts = grams(text, min(order, len(text)))
        norm = math.sqrt(sum(count * count for count in counts.values()))
        for gram, count in counts.items():
            places.append((row, column.setdefault(gram, len(column))))
            values.append(count / norm)
    at = np.array(places, dtype=np.int64).reshape(-1, 2).T
    vectors = csr_matrix((values, (at[0], at[1])), shape=(len(texts), max(1, len(column))))
    return np.asarray((vectors @ vectors.T).toarray(), dtype=np.float64)


def grams(text: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each run of `order` words stands in a text."""
    return Counter(tuple(text[start : start + order]) for start in range(len(text) - order + 1))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of all texts, one a line, over their bytes after DEFLATE at level 9, the method of gzip.

    Shaib et al. 2024, arXiv 2403.00553, section 3.
    """
    plain = "\n".join(texts).encode("utf-8", "replace")
    return len(plain) / len(zlib.compress(plain, level=9))


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """The mean BLEU-4 of each text with all others as its references (Zhu et al. 2018, arXiv 1802.01886).

    texts: each as its words, two or more. BLEU as in Papineni et al. 2002, with smoothing method 1 of Chen
    and Cherry 2014. A text with fewer than four words is scored by its orders that exist.
    """
    counted = [[grams(text, order) for text in texts] for order in range(1, BLEU_ORDER + 1)]
    tops = [_two_highest(each) for each in counted]
    lengths = sorted(len(text) for text in texts)
    scores = []
    for number, text in enumerate(texts):
        logs = []
        for counts, top in zip([each[number] for each in counted], tops, strict=True):
            total = sum(counts.values())
            if total:
                matched = sum(
                    min(count, _highest_of_others(top[gram], number)) for gram, count in counts.items()
                )
                logs.append(math.log((matched or _NO_MATCH) / total))
        scores.append(math.exp(math.fsum(logs) / len(logs) + _brevity(len(text), lengths)) if logs else 0.0)
    return math.fsum(scores) / len(scores)


Highest = tuple[int, int, int]
"""The highest count of an n-gram in one text, that text's number, and the highest count in another text."""


def _two_highest(counted: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], Highest]:
    highest: dict[tuple[str, ...], Highest] = {}
    for number, counts in enumerate(counted):
        for gram, count in counts.items():
            first, owner, second = highest.get(gram, (0, -1, 0))
            if count > first:
                highest[gram] = (count, number, first)
            else:
                highest[gram] = (first, owner, max(second, count))
    return highest


def _highest_of_others(highest: Highest, number: int) -> int:
    first, owner, second = highest
    return second if owner == number else first


def _brevity(length: int, lengths: Sequence[int]) -> float:
    """The logarithm of BLEU's brevity penalty, against the nearest length of another text."""
    others = list(lengths)
    others.remove(length)
    nearest = min(others, key=lambda each: (abs(each - length), each))
    return min(0.0, 1 - nearest / length)
