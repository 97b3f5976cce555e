"""Runs a child process to a deadline, and ends it with everything that it has started."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dynalign.configs.errors import DeadlineExceeded, RunFailed

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "PYTHONUNBUFFERED": "1",
}
_GONE_DEADLINE_S = 15.0


def run_python(
    arguments: list[str],
    log: Path,
    deadline_s: float,
    environment: Mapping[str, str] = ENVIRONMENT,
    python: Path = Path(sys.executable),
) -> None:
    """Runs a Python, this one by default, with its output in `log`.

    Raises RunFailed with the last line it wrote, or DeadlineExceeded.
    """
    with (
        log.open("w") as out,
        _child([str(python), *arguments], out.fileno(), os.environ | environment) as child,
    ):
        try:
            code = child.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(" ".join(arguments), deadline_s) from error
    if code:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise RunFailed(lines[-1].strip() if lines else f"it ended with {code} and said nothing")


@contextmanager
def _child(command: list[str], out: int, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The child in a session of its own. So Ctrl-C in a terminal reaches this process alone, which then ends
    the child and all that it has started.
    """
    child = subprocess.Popen(
        command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    try:
        yield child
    finally:
        end_tree(child)


def end_tree(child: "subprocess.Popen[bytes]") -> None:
    """Kills a child, its descendants, and the rest of its session. The child goes first, so that it starts no
    more.
    """
    ours = _session(child.pid)
    if child.poll() is None:  # else its number may already be somebody else's
        with suppress(psutil.NoSuchProcess):
            ours += psutil.Process(child.pid).children(recursive=True)
        child.kill()
        child.wait(timeout=_GONE_DEADLINE_S)
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, timeout=_GONE_DEADLINE_S)


def _session(leader: int) -> list[psutil.Process]:
    """The processes of a session without its leader. While one is left, no new process gets the leader's
    number."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader and process.pid != leader:
                found.append(process)
    return found
