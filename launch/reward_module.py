"""Whether the user's reward function can be imported: tried in a process of its own, before a run.

A module does whatever its author wants when it is imported: it raises, ends its process, prints, asks a
question, or never comes to an end. None of that may reach the command that examines it.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.judges.function import PLACE, import_mistake, load_function

IMPORT_DEADLINE_S = 120.0
"""Importing torch from a cold, shared disk takes most of a minute."""
_MOST_BYTES = 1 << 16
"""Of the child's answer; a pipe holds as much without a reader."""
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dynalign.launch.reward_module import answer; "
    "answer(sys.argv[2], *map(int, sys.argv[3:]))"
)


def reward_mistakes(name: str, deadline_s: float = IMPORT_DEADLINE_S) -> list[Mistake]:
    """What is wrong with the function `package.module:callable`; the same question is asked once per process.

    deadline_s: longest time of the import.
    """
    return list(_tried(name, deadline_s, tuple(sys.path), Path.cwd()))


@lru_cache(maxsize=1)
def _tried(name: str, deadline_s: float, path: tuple[str, ...], folder: Path) -> tuple[Mistake, ...]:
    """path, folder: what decides, beside the name, which module is imported."""
    reading, writing = _pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(path), name, str(writing), str(int(deadline_s) + 5)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            cwd=folder,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):  # also whatever the module has started
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        with suppress(BlockingIOError):
            if answered := os.read(reading, _MOST_BYTES):
                return tuple(Mistake(*mistake) for mistake in json.loads(answered))
    finally:
        os.close(reading)
        os.close(writing)
    rule = _silence(code, deadline_s)
    return (Mistake(PLACE, name, rule, "mend that module: every worker imports it"),)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return reading, writing


def _silence(code: int | None, deadline_s: float) -> str:
    """Why the child did not answer. code: its exit code; None where it had to be killed."""
    if code is None:
        return f"its import was not over after {deadline_s:g} s"
    how = f"with exit code {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
    return f"its import ended the process {how}"


def answer(name: str, writing: int, most_s: int) -> None:
    """What the child does: imports the function, writes its mistakes to the pipe, and ends, whatever the
    module has left running. It ends after `most_s` seconds even if nobody waits for it any more."""

    def raised(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistakes = error.mistakes if isinstance(error, UserError) else (import_mistake(name, error),)
        _end(writing, mistakes)

    signal.alarm(most_s)
    sys.excepthook = raised
    load_function(name)
    _end(writing, ())


def _end(writing: int, mistakes: tuple[Mistake, ...]) -> None:
    told = [(mistake.place, mistake.value, mistake.rule, mistake.remedy) for mistake in mistakes]
    with suppress(OSError):  # nobody waits any more
        os.write(writing, json.dumps(told).encode())
    os._exit(0)
