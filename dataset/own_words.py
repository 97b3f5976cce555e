"""The words that name the value, found in a text whatever their case and what stands between them."""

import re
from collections.abc import Iterable
from functools import lru_cache


def named_words(texts: Iterable[str], own_words: tuple[str, ...]) -> list[str]:
    """Those of `own_words` that one of the texts holds as whole words, in their order."""
    joined = "\n\n".join(texts)
    return [word for word in own_words if _pattern(word).search(joined)]


@lru_cache(maxsize=256)
def _pattern(phrase: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in re.split(r"[\W_]+", phrase) if word]
    between = r"[\W_]+".join(words)
    return re.compile(rf"(?<![^\W_]){between}(?![^\W_])", re.IGNORECASE)
