import time
from pathlib import Path

import pytest

from dynalign.configs.errors import StaleLineage
from dynalign.launch import driver
from dynalign.launch.driver import Heartbeat
from dynalign.run_folder import owner


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_BEAT_S", 0.02)


def test_a_driver_that_is_held_up_goes_on_beating(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, 0.0)
    with Heartbeat(mine) as heart:
        time.sleep(0.3)  # as if Ray took long to start
        heart.check()
    stamp = owner.read(tmp_path)
    assert stamp is not None
    assert time.time() - stamp.beat_s < 5


def test_a_driver_whose_run_was_taken_over_learns_it(tmp_path: Path) -> None:
    mine = owner.acquire(tmp_path, 0.0)  # a beat in 1970: dead to everybody else
    owner.acquire(tmp_path, time.time())
    with Heartbeat(mine) as heart:
        time.sleep(0.3)
        with pytest.raises(StaleLineage):
            heart.check()
