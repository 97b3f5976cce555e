"""The driver's signs of life, and what ends them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynalign.configs.errors import DynalignError, RunFailed, StaleLineage
from dynalign.launch.heartbeat import Heartbeat
from dynalign.run_folder import layout, owner

OFTEN_S = 0.02


def until(there: Callable[[], object]) -> None:
    end_s = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end_s
        time.sleep(OFTEN_S)


def raised(heart: Heartbeat) -> DynalignError | None:
    try:
        heart.check()
    except DynalignError as error:
        return error
    return None


def test_a_driver_that_is_held_up_goes_on_beating(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, 0.0)
    with Heartbeat(mine, OFTEN_S) as heart:
        time.sleep(0.3)  # as if Ray took long to start
        heart.check()
    stamp = owner.read(tmp_path)
    assert stamp is not None
    assert time.time() - stamp.beat_s < 5


def test_a_driver_whose_run_was_taken_over_learns_it(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, 0.0)  # a beat in 1970: dead to everybody else
    owner.acquire(tmp_path, time.time())
    with Heartbeat(mine, OFTEN_S) as heart:
        until(lambda: raised(heart))
        with pytest.raises(StaleLineage):
            heart.check()


def test_a_damaged_owner_file_is_forgiven_for_a_while_and_then_ends_the_run(tmp_path: Path) -> None:
    now_s = 1000.0
    mine = owner.acquire(tmp_path, now_s)
    with Heartbeat(mine, OFTEN_S, lambda: now_s) as heart:
        (tmp_path / layout.OWNER).write_text("{")
        time.sleep(5 * OFTEN_S)
        heart.check()
        now_s += owner.YOUNG_S + 1
        until(lambda: raised(heart))
        with pytest.raises(RunFailed, match=r"owner\.json cannot be written: RecordError"):
            heart.check()


def test_a_thread_that_ends_for_whatever_reason_is_noticed(tmp_path: Path) -> None:
    def broken() -> float:
        raise ZeroDivisionError

    with Heartbeat(owner.acquire(tmp_path, 0.0), OFTEN_S, broken) as heart:
        until(lambda: raised(heart))
        with pytest.raises(RunFailed, match="the thread that writes this driver's signs of life has ended"):
            heart.check()
