"""Names that a generator invents again and again.

A name is a capitalized word inside a sentence that stands nowhere in the set without its capital. That is
meant for English: in German every noun is capitalized.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_ENDS_SENTENCE = re.compile(r"[.!?:;…\"“”‘(\[\n*•–—-]\s*$|^\s*$")
_NO_NAMES = frozenset(
    {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january", "february"}
    | {"march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}
    | {"english", "christmas", "easter", "mr", "mrs", "ms", "dr", "i", "i'm", "i'd", "i'll", "i've"}
)


@dataclass(frozen=True, slots=True)
class CommonName:
    """A name with the number of texts that it stands in: `CommonName("Elena", 31, 0.155)`."""

    name: str
    """The word."""
    texts: int
    """Texts that hold it, each counted once."""
    share: float
    """`texts` over all texts, 0 to 1."""


def common_names(texts: Sequence[str], most: int = 5) -> tuple[CommonName, ...]:
    """The names that stand in most texts, most common first, alphabetically where equally common."""
    written_small: set[str] = set()
    found: Counter[str] = Counter()
    for text in texts:
        names: set[str] = set()
        for match in _WORD.finditer(text):
            word = _without_genitive(match.group())
            if word[0].islower():
                written_small.add(word.lower())
            elif word[1:].islower() and not _ENDS_SENTENCE.search(
                text[max(0, match.start() - 4) : match.start()]
            ):
                names.add(word)
        found.update(names)
    kept = {
        name: count
        for name, count in found.items()
        if name.lower() not in written_small and name.lower() not in _NO_NAMES
    }
    ranked = sorted(kept.items(), key=lambda each: (-each[1], each[0]))[:most]
    return tuple(CommonName(name, count, count / len(texts)) for name, count in ranked)


def _without_genitive(word: str) -> str:
    return re.sub(r"['\u2019]s$", "", word)
