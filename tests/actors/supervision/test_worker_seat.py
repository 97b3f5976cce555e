"""The end of a worker's process: it may leave by itself, and is gone in any case."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from dynalign.actors.supervision.worker_seat import _kill


def started(before: str, after: str) -> psutil.Process:
    """A Python process that has done what comes before."""
    code = f"import pathlib, subprocess, time; {before}; print(1, flush=True); {after}"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"1\n"
    return psutil.Process(child.pid)


def test_a_process_that_is_on_its_way_out_leaves_by_itself(tmp_path: Path) -> None:
    left = tmp_path / "left"
    process = started("pass", f"time.sleep(0.3); pathlib.Path({str(left)!r}).touch()")
    _kill(process.pid, process.create_time())
    assert left.exists()
    assert not process.is_running()


def test_one_that_is_stopped_is_gone_afterwards_with_its_children() -> None:
    process = started("subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)", "time.sleep(60)")
    (child,) = process.children()
    os.kill(process.pid, signal.SIGSTOP)
    _kill(process.pid, process.create_time())
    gone, alive = psutil.wait_procs([process, child], timeout=5)
    assert (len(gone), alive) == (2, [])


def test_another_process_of_that_number_is_left_alone() -> None:
    process = started("pass", "time.sleep(60)")
    _kill(process.pid, process.create_time() - 1)
    assert process.is_running()
    process.kill()
    process.wait(5)
