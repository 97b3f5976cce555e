"""A server's words, with whatever they quote of a key or of a question taken out."""

from collections.abc import Iterable

LONGEST = 240
"""Characters of a server's words that are kept."""
WINDOW = 12
"""Characters in a row that count as a quotation."""
MASK = "***"


def scrubbed(text: str, hidden: Iterable[str]) -> str:
    """`text` on one line and cut, with quotations of `hidden` masked.

    Every run of 12 characters that `text` shares with a hidden text is masked; a hidden text that is
    shorter is masked as a whole.
    """
    line = " ".join(text.split())[: LONGEST * 4]
    quoted = [False] * len(line)
    for each in hidden:
        whole = " ".join(each.split())
        width = min(WINDOW, len(whole))
        if not width:
            continue
        windows = {whole[start : start + width] for start in range(len(whole) - width + 1)}
        for start in range(len(line) - width + 1):
            if line[start : start + width] in windows:
                quoted[start : start + width] = [True] * width
    return _masked(line, quoted)[:LONGEST]


def _masked(line: str, quoted: list[bool]) -> str:
    """Each run of quoted characters becomes one mask."""
    parts: list[str] = []
    for character, is_quoted in zip(line, quoted, strict=True):
        if not is_quoted:
            parts.append(character)
        elif not parts or parts[-1] != MASK:
            parts.append(MASK)
    return "".join(parts)
