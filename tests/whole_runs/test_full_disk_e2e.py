"""A real run of two learner ranks. One's disk is full for a while: the run goes on, and says so."""

import json
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynalign.run_folder.checkpoint import newest_whole, verify
from tests.worlds.command import dynalign, left_over, running
from tests.worlds.tiny_run import config, started

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]

LEAST_BYTES = 256 << 10
"""More than any log of a rank, less than its part of a checkpoint."""


def ranks() -> list[psutil.Process]:
    """The processes of this test run's learner ranks."""
    return running("ray::LearnerRank")


@contextmanager
def full_disk(rank: psutil.Process) -> Iterator[None]:
    """No file of this process can grow past LEAST_BYTES."""
    before = rank.rlimit(resource.RLIMIT_FSIZE)
    rank.rlimit(resource.RLIMIT_FSIZE, (LEAST_BYTES, before[1]))
    try:
        yield
    finally:
        rank.rlimit(resource.RLIMIT_FSIZE, before)


def test_each_rank_s_full_disk_costs_checkpoints_and_no_rank(tmp_path: Path) -> None:
    """With experience.keep_steps=0, since a rank 0 that cannot write the experience ends the run."""
    file = config(
        tmp_path, learner={"ranks": 2}, checkpoint={"every_steps": 1, "failures": 1000, "keep_last": 1}
    )
    folder = tmp_path / "runs" / "tiny"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", "steps=100000", "experience.keep_steps=0")
    )

    def until(what: Callable[[dict[str, Any]], bool], deadline_s: float = 60) -> dict[str, Any]:
        end_s = time.monotonic() + deadline_s
        while True:
            assert process.poll() is None, process.communicate()[0]
            with suppress(OSError, ValueError):
                status = json.loads((folder / "status.json").read_text())
                if what(status):
                    return dict(status)
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def newest() -> int:
        whole = newest_whole(folder / "checkpoints")
        return 0 if whole is None else int(whole.name.removeprefix("step-"))

    until(lambda status: newest() >= 2, 400)
    pids = {rank.pid for rank in ranks()}
    assert len(pids) == 2
    notices = []
    for rank in ranks():
        with full_disk(rank):
            notices.append(until(lambda status: "was not written" in status["notice"])["notice"])
            failed_at, kept = until(lambda status: True)["step"], newest()
            until(lambda status, failed_at=failed_at: status["step"] >= failed_at + 2)  # type: ignore[misc]
            assert newest() == kept
        until(lambda status, kept=kept: newest() > kept and status["notice"] == "")  # type: ignore[misc]
    assert {rank.pid for rank in ranks()} == pids
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert left_over() == ()
    assert all("File too large" in notice and "GiB are free there" in notice for notice in notices)
    assert {notice.partition("learner rank ")[2][:1] for notice in notices} == {"0", "1"}
    whole = newest_whole(folder / "checkpoints")
    assert whole is not None
    assert verify(whole).step == json.loads((folder / "summary.json").read_text())["step"]
