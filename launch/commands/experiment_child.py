"""A part of an experiment as a process of its own: a `dynalign` command, as a user would start it.

A process, and not a call: it may end by any signal or crash of a library without ending the others, its Ray
session is its own, and it can be asked to stop as a user would ask it. It is a session of its own, so that
Ctrl-C reaches it once, through us; and the kernel sends it SIGTERM when we die, so that it stops with a
checkpoint, also where we are killed.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from dynalign.run_folder import layout

_SIGNS = (layout.OWNER, layout.STATUS, layout.METRICS, layout.ANSWERS, f"{layout.ANSWERS}-wal")
"""Files that change while a run's driver lives, or while a command that asks models gets answers."""
_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class CommandProcess:
    """A process of `dynalign`. Raises OSError if it cannot be started.

    arguments: the command line. folder: the folder in which it leaves signs of life. log: what it prints is
    appended there.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, log: Path) -> None:
        self._signs = (log, *(folder / name for name in _SIGNS))
        self._started_s = time.time()
        command = [sys.executable, "-m", "dynalign.launch.cli", *arguments]
        log.parent.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(['dynalign', *arguments])}\n".encode())
            out.flush()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ends_with(os.getpid()),
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """As Ctrl-C does: once, it stops with a checkpoint; twice, at once.

        By SIGTERM: what a script starts in the background ignores SIGINT, and so do its children."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and everything that it has started in its session, and waits for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def silent_s(self) -> float:
        """Seconds since its last sign of life: a line, a beat, a step."""
        signs = [self._started_s]
        for path in self._signs:
            with suppress(FileNotFoundError):
                signs.append(path.stat().st_mtime)
        return time.time() - max(signs)


def ends_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the command: the kernel is to send it SIGTERM when we end."""
    library = ctypes.CDLL(None)

    def ask_kernel() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before it was asked for
            os._exit(1)

    return ask_kernel
