import json
import threading
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from launch import control
from launch.run_folder import CONFIG_FILE
from rollout import owner

STATUS = {
    "run": "r", "state": "running", "step": 3, "steps": 8, "lineage": 1, "phase": "learning step 4", "waiting_for": "2 of 4 groups scored",
    "ledger": {"issued": 14, "pending": 0, "leased": 2, "scored": 0, "trained": 12, "withheld": 0},
    "metrics": {"reward_mean": 2.5, "step_s": 14.0, "staleness_max": 1},
    "workers": [{"name": "rollout-0", "state": "serving", "version": 3, "groups_in_flight": 2}],
}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / CONFIG_FILE).write_text("")
    return tmp_path


def test_a_request_ends_when_the_driver_has_taken_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner.acquire(runs / "r", time.time())
    taken: list[str] = []

    def driver() -> None:
        while not taken:
            taken.extend(control.take_requests(runs / "r"))
            time.sleep(0.01)

    thread = threading.Thread(target=driver, daemon=True)
    thread.start()
    assert control.ask("r", str(runs), "pause") == 0
    thread.join(timeout=5)
    assert taken == ["pause"]
    assert "pauses after the step under way" in capsys.readouterr().out
    assert control.take_requests(runs / "r") == []


def test_a_run_that_has_ended_takes_no_request(runs: Path) -> None:
    owner.acquire(runs / "r", time.time()).release(time.time())
    with pytest.raises(UserError, match="not running"):
        control.ask("r", str(runs), "stop")
    assert control.take_requests(runs / "r") == []


def test_the_status_of_a_running_run_is_its_drivers_last_look(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner.acquire(runs / "r", time.time())
    control.write_status(runs / "r", STATUS)
    assert json.loads((runs / "r" / control.STATUS_FILE).read_text()) == STATUS
    assert control.status("r", str(runs)) == 0
    shown = capsys.readouterr().out
    assert "run r running: step 3 of 8" in shown
    assert "issued 14 = pending 0 + leased 2 + scored 0 + trained 12 + withheld 0" in shown
    assert "rollout-0: serving, version 3, 2 groups in flight" in shown


def test_an_interrupted_run_without_a_summary_says_how_to_go_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert control.status("r", str(runs)) == 0
    assert "`dynalign train` continues it" in capsys.readouterr().out
