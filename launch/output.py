"""Standard output and error that cannot end a command: no character, no reader that has gone, no full disk.

    sys.stdout ─► text in its encoding ─► Descriptor ─► the same file descriptor, or /dev/null once nobody
    reads it any more

What a run prints only informs, and a run must not end for it (`dynalign train … | head`).
"""

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""No reader of the pipe, no terminal, a closed descriptor: what is written later is lost, too."""


class Descriptor(io.RawIOBase):
    """A file descriptor whose writing never raises. `lost`: what kept the first bytes from being written;
    None while nothing was lost."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.lost: OSError | None = None

    def write(self, content: "ReadableBuffer", /) -> int:
        try:
            return os.write(self._number, content)
        except OSError as error:
            self.lost = self.lost or error
            if error.errno in READER_GONE:
                _to_nothing(self._number)
        return memoryview(content).nbytes

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True


_OUT = Descriptor(1)


def make_safe() -> None:
    """Replaces standard output and standard error of this process, in which a character that the encoding
    lacks becomes a question mark.

    Closed ones are opened to nothing, before another file gets their number and every child writes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _to_nothing(number)
    sys.stdout = _text(sys.stdout, _OUT)
    sys.stderr = _text(sys.stderr, Descriptor(2))


def lost() -> OSError | None:
    """What kept standard output from being written since `make_safe`; None for nothing."""
    sys.stdout.flush()
    return _OUT.lost


def _text(replaced: TextIO | None, descriptor: Descriptor) -> TextIO:
    """Whole lines are written at once, also into a pipe: what is said before long work is read before it.

    replaced: None is what Python makes of a closed descriptor."""
    encoding = "utf-8" if replaced is None else replaced.encoding
    buffer = io.BufferedWriter(descriptor)
    return io.TextIOWrapper(buffer, encoding=encoding, errors="replace", line_buffering=True)


def _to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nothing, number)
        os.close(nothing)
