"""The words of a text, whatever its case, spacing, punctuation and Unicode form."""

import unicodedata

_ONE_BY_ONE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, later extensions
)
"""Blocks of the scripts that write no spaces between words: each character counts as a word."""
_APOSTROPHES = "'\u2019\u02bc\uff07`\u00b4\u2018"


class _Table(dict[int, str | None]):
    """What `str.translate` puts in the place of a character; filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        self[code] = _replacement(code)
        return self[code]


def _replacement(code: int) -> str | None:
    character = chr(code)
    category = unicodedata.category(character)
    if character in _APOSTROPHES or category == "Cf":  # zero-width marks, soft hyphens
        return None
    if category[0] in "PSZC":
        return " "
    if any(low <= code <= high for low, high in _ONE_BY_ONE):
        return f" {character} "
    return character


_TABLE = _Table()


def words(text: str) -> list[str]:
    """The words of a text after NFKC and case folding, without punctuation, symbols and format marks.

    An apostrophe joins (`don't` is `dont`), other punctuation separates. In scripts without spaces between
    words, each character is a word. Example: `words("Don’t  PANIC — yet!") == ["dont", "panic", "yet"]`.
    """
    # Twice: folding can undo the composition (Unicode 16, section 3.13, definition 146).
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.translate(_TABLE).split()
