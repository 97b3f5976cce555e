"""The bytes and lines of a file of any size, packed by gzip or not, in bounded memory."""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from dynalign.configs.user_files import TooLarge, UnreadableFile, read_parts

LONGEST_LINE_BYTES = 1 << 24
"""A line of more bytes is no prompt."""
MOST_RATIO = 200
"""Unpacked bytes per packed byte: text reaches 20, many copies of one line 100, and a bomb 1,000."""
FREE_BYTES = 1 << 26
"""So much may be unpacked at any ratio: a small file may repeat itself."""
_PIECE_BYTES = 1 << 20
_GZIP = 31
"""zlib's window bits for a gzip header and the largest window."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def content(path: Path) -> Iterator[bytes]:
    """The bytes of a file in parts, unpacked where its name ends in .gz.

    Raises UnreadableFile for what cannot be read, is no gzip, ends too early or unpacks beyond all measure.
    """
    parts = read_parts(path)
    return unpacked(parts) if path.suffix.lower() == ".gz" else parts


def unpacked(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes that gzip packed, one stream or several. Raises UnreadableFile like `content`."""
    stream = zlib.decompressobj(_GZIP)
    begun = False
    packed_bytes = 0
    unpacked_bytes = 0
    try:
        for part in parts:
            packed_bytes += len(part)
            rest = part if begun else _without_filling(part)
            while rest:
                begun = True
                piece = stream.decompress(rest, _PIECE_BYTES)
                unpacked_bytes += len(piece)
                if unpacked_bytes > FREE_BYTES + MOST_RATIO * packed_bytes:
                    raise TooLarge(f"it unpacks to more than {MOST_RATIO} times its size")
                yield piece
                rest = stream.unconsumed_tail
                if stream.eof:
                    rest = _without_filling(stream.unused_data)
                    stream = zlib.decompressobj(_GZIP)
                    begun = False
    except zlib.error as error:
        raise UnreadableFile(f"it is damaged, or not packed by gzip: {error}") from error
    if begun or not packed_bytes:
        raise UnreadableFile("its gzip stream ends too early")


def _without_filling(part: bytes) -> bytes:
    """What follows a stream, without the zeros that fill the last block of a tape or disk."""
    return part.lstrip(b"\0")


def lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file without the newline that ends them.

    Raises UnreadableFile for UTF-16, and at a line of more than LONGEST_LINE_BYTES.
    """
    pending: list[bytes] = []
    pending_bytes = 0
    number = 0
    for part in parts:
        first, *others = part.split(b"\n")
        pending.append(first)
        pending_bytes += len(first)
        for other in others:
            number += 1
            yield _line(pending, number, pending_bytes)
            pending = [other]
            pending_bytes = len(other)
        if pending_bytes > LONGEST_LINE_BYTES:
            _line(pending, number + 1, pending_bytes)
    if pending_bytes:
        yield _line(pending, number + 1, pending_bytes)


def _line(pending: list[bytes], number: int, size_bytes: int) -> bytes:
    if size_bytes > LONGEST_LINE_BYTES:
        raise TooLarge(f"its line {number:,} has more than {LONGEST_LINE_BYTES:,} bytes")
    line = b"".join(pending)
    if number == 1 and line.startswith(_UTF_16):
        raise UnreadableFile("it is UTF-16, not UTF-8: save it as UTF-8")
    return line
