"""`dynalign` as a user calls it: a process of its own, its output, and the processes that it leaves."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MARK = "DYNALIGN_TEST_RUN"
ENVIRONMENT = os.environ | {MARK: uuid.uuid4().hex, "RAY_worker_niceness": "0"}
"""Of every command of this test run. The mark tells its processes from those of other runs on the machine. By
default Ray's workers have niceness 15, and on a busy machine they would miss every deadline."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    """Exit status."""

    output: str
    """Standard output, then standard error."""

    wall_s: float
    """Seconds from start to end."""

    left_over: tuple[str, ...]
    """Names of its processes that still run."""


def running(title: str = "") -> list[psutil.Process]:
    """The processes of this test run's commands that still run and whose command line begins with `title`.

    Children inherit the mark."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        with suppress(psutil.Error):  # it has ended, or belongs to another user
            command = " ".join(process.info["cmdline"] or [])
            if command.startswith(title) and process.environ().get(MARK) == ENVIRONMENT[MARK]:
                found.append(process)
    return found


def left_over() -> tuple[str, ...]:
    """Names of the processes of this test run's commands that still run."""
    return tuple(process.info["name"] or "" for process in running())


def kill_left_over() -> None:
    """Ends what a failed test has left, so that the tests after it find an empty machine."""
    for process in running():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def dynalign(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dynalign.launch.cli", *arguments]


def train(config: Path, *overrides: str) -> Ended:
    """`dynalign train` to its end. The run folder is in `runs/` beside the configuration."""
    started_s = time.monotonic()
    command = dynalign("train", str(config), f"runs={config.parent / 'runs'}", *overrides)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - started_s, left_over())


def wait_for(there: Callable[[], Any], what: str, deadline_s: float = 240.0) -> None:
    """Asks `there` five times a second until it is true. Fails with `what` after `deadline_s`."""
    end_s = time.monotonic() + deadline_s
    while not there():
        assert time.monotonic() < end_s, what
        time.sleep(0.2)


def alive(process: "subprocess.Popen[str]", there: Callable[[], Any]) -> Callable[[], Any]:
    """The question `there`, which fails with the driver's output once the driver has ended."""

    def ask() -> Any:
        assert process.poll() is None, process.communicate()[0]
        return there()

    return ask
