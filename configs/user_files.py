"""The one reader of files that a user names: bounded in kind, size and time.

A device has no end, a FIFO waits for a writer, a share of a network may never answer. Each of these becomes
one line for the user.
"""

import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

SILENCE_S = 10.0
"""Longest wait, in seconds, for the next part of a file. A local disk answers in milliseconds."""
_PART_BYTES = 1 << 24
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISSOCK, "it is a socket"),
)


class UnreadableFile(OSError):
    """A file that cannot be read within its bounds. The text is the cause, for `cannot be read (…)`."""


class TooLarge(UnreadableFile):
    """A file with more bytes than are read."""


def check_is_file(path: Path) -> None:
    """Raises UnreadableFile for what is not there, and for a folder, pipe, device or socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UnreadableFile(_cause(error)) from error
    if not stat.S_ISREG(mode):
        raise UnreadableFile(next((words for is_kind, words in _KINDS if is_kind(mode)), "it is no file"))


def read_file(path: Path, limit_bytes: int | None = None, silence_s: float = SILENCE_S) -> bytes:
    """The content of a regular file.

    limit_bytes: the largest size that is read; None for a file as large as the memory. silence_s: the
    longest wait for its next part. Raises UnreadableFile, without having read more than the limit.
    """
    parts: queue.SimpleQueue[bytes | OSError | None] = queue.SimpleQueue()
    _start(parts, path, limit_bytes, None)
    return b"".join(received(parts, silence_s))


def read_parts(path: Path, silence_s: float = SILENCE_S) -> Iterator[bytes]:
    """The content of a regular file, in parts of at most 16 MiB, of which two are in memory at a time.

    silence_s: the longest wait for the next part. Raises UnreadableFile when the first part is asked for, or
    later when the file stops answering.
    """
    parts: queue.SimpleQueue[bytes | OSError | None] = queue.SimpleQueue()
    ahead = _Ahead()
    _start(parts, path, None, ahead)
    try:
        for part in received(parts, silence_s):
            ahead.turns.release()
            yield part
    finally:
        ahead.ended.set()
        ahead.turns.release()


class _Ahead:
    """How far a reading thread may be ahead of its reader: by one part, until the reader ends."""

    def __init__(self) -> None:
        self.turns = threading.Semaphore(1)
        self.ended = threading.Event()

    def go_on(self) -> bool:
        """Waits for a turn; False once the reader has ended."""
        self.turns.acquire()
        return not self.ended.is_set()


def _start(
    parts: "queue.SimpleQueue[bytes | OSError | None]",
    path: Path,
    limit_bytes: int | None,
    ahead: _Ahead | None,
) -> None:
    threading.Thread(
        target=_read_into, args=(parts, path, limit_bytes, ahead), name=f"read {path.name}", daemon=True
    ).start()


def received(parts: "queue.SimpleQueue[bytes | OSError | None]", silence_s: float) -> Iterator[bytes]:
    """The parts of a file up to None. Raises UnreadableFile if one takes longer than `silence_s` seconds."""
    while True:
        try:
            part = parts.get(timeout=silence_s)
        except queue.Empty:
            raise UnreadableFile(f"its file system does not answer within {silence_s:g} s") from None
        if part is None:
            return
        if isinstance(part, OSError):
            raise part
        yield part


def _read_into(
    parts: "queue.SimpleQueue[bytes | OSError | None]",
    path: Path,
    limit_bytes: int | None,
    ahead: _Ahead | None,
) -> None:
    """In a thread of its own, because a read from a file system that hangs cannot be interrupted."""
    try:
        check_is_file(path)
        # Not blocking: between the check and the opening, a pipe may have replaced the file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            size_bytes = os.fstat(descriptor).st_size
            while ahead is None or ahead.go_on():
                part = file.read(_PART_BYTES if limit_bytes is None else limit_bytes + 1)
                if not part:
                    break
                size_bytes = max(size_bytes, file.tell())
                if limit_bytes is not None and size_bytes > limit_bytes:
                    raise TooLarge(f"it has {size_bytes:,} bytes, more than {limit_bytes:,}")
                parts.put(part)
        parts.put(None)
    except UnreadableFile as error:
        parts.put(error)
    except OSError as error:
        parts.put(UnreadableFile(_cause(error)))


def _cause(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
