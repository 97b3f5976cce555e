"""`dynalign` as a user calls it: a process of its own, its output, and what it leaves behind."""

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
ENVIRONMENT = os.environ | {MARK: uuid.uuid4().hex}
"""For every command of this test run, so that its processes can be told from those of other runs on the machine."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended. left_over: names of its processes that are still there."""

    code: int
    output: str
    wall_s: float
    left_over: tuple[str, ...]


def left_over() -> tuple[str, ...]:
    """Processes that a command of this test run started and that are still there: children inherit its mark."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):  # gone, or not ours to look at
            if process.environ().get(MARK) == ENVIRONMENT[MARK]:
                found.append(process.info["name"] or "")
    return tuple(found)


def dynalign(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dynalign.launch.cli", *arguments]


def train(config: Path, *overrides: str) -> Ended:
    """Runs end in `runs/` beside the configuration."""
    started_s = time.monotonic()
    command = dynalign("train", str(config), f"runs={config.parent / 'runs'}", *overrides)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - started_s, left_over())


def wait_for(there: Callable[[], Any], what: str, deadline_s: float = 240.0) -> None:
    """Looks again and again; fails with `what` when it is still not there."""
    end_s = time.monotonic() + deadline_s
    while not there():
        assert time.monotonic() < end_s, what
        time.sleep(0.2)


def alive(process: "subprocess.Popen[str]", there: Callable[[], Any]) -> Callable[[], Any]:
    """The same question, which fails at once when the driver has ended."""

    def ask() -> Any:
        assert process.poll() is None, process.communicate()[0]
        return there()

    return ask
