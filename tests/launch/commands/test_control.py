import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import RecordError, UserError
from dynalign.launch.commands import control
from dynalign.run_folder import layout, owner, requests
from dynalign.run_folder.requests import Request
from dynalign.run_folder.run_status import RunStatus

STATUS = {
    "run": "r", "state": "running", "step": 3, "steps": 8, "lineage": 1,
    "phase": "learning step 4", "waiting_for": "2 of 4 groups scored",
    "ledger": {"issued": 14, "pending": 0, "leased": 2, "scored": 0, "trained": 12, "withheld": 0},
    "metrics": {"reward_mean": 2.5, "step_s": 14.0, "staleness_max": 1},
    "workers": [{"name": "rollout-0", "state": "serving", "version": 3, "groups_in_flight": 2}],
    "workers_wanted": 1, "workers_range": None, "why_wanted": "rollout.workers",
    "settling": False, "restarts": {"worker/died": 2},
    "pool": {
        "decision": 0, "wanted": 0, "reason": "",
        "now": "balanced: learner waited 3%, workers idled 9% of the step",
    },
}  # fmt: skip


SHOWN = {key: value for key, value in STATUS.items() if key != "workers"}


def status_of(**changed: Any) -> RunStatus:
    return RunStatus.from_json(STATUS | changed)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / layout.CONFIG).write_text("")
    return tmp_path


@contextmanager
def taking_requests(folder: Path) -> Iterator[list[Request]]:
    """A driver that takes the first requests it sees."""
    taken: list[Request] = []

    def driver() -> None:
        while not taken:
            taken.extend(requests.take(folder))
            time.sleep(0.01)

    thread = threading.Thread(target=driver, daemon=True)
    thread.start()
    yield taken
    thread.join(timeout=5)


def test_a_request_ends_when_the_driver_has_taken_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner.acquire(runs / "r", time.time())
    with taking_requests(runs / "r") as taken:
        assert control.ask("r", str(runs), "pause") == 0
    assert taken == [Request("pause")]
    assert "pauses after the step under way" in capsys.readouterr().out
    assert requests.take(runs / "r") == []


def test_a_run_that_has_ended_takes_no_request(runs: Path) -> None:
    owner.acquire(runs / "r", time.time()).release(time.time())
    with pytest.raises(UserError, match="not running"):
        control.ask("r", str(runs), "stop")
    assert requests.take(runs / "r") == []


def test_the_status_of_a_running_run_is_its_drivers_last_look(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.acquire(runs / "r", time.time())
    requests.write_status(runs / "r", status_of())
    assert json.loads((runs / "r" / layout.STATUS).read_text()).items() >= SHOWN.items()
    assert control.status("r", str(runs)) == 0
    shown = capsys.readouterr().out
    assert "run r running: step 3 of 8" in shown
    assert "issued 14 = pending 0 + leased 2 + scored 0 + trained 12 + withheld 0" in shown
    assert "rollout-0: serving, version 3, 2 groups in flight" in shown
    assert "workers wanted: 1 (rollout.workers)" in shown
    assert "sizing after the last step: balanced: learner waited 3%, workers idled 9% of the step" in shown
    assert "restarts: worker/died 2" in shown


def test_an_interrupted_run_without_a_summary_says_how_to_go_on(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert control.status("r", str(runs)) == 0
    shown = capsys.readouterr().out
    assert f"`dynalign train {runs / 'r' / layout.CONFIG} runs={runs}` continues it" in shown


def killed(folder: Path, ago_s: float) -> None:
    """A driver that wrote its last sign of life `ago_s` seconds ago, and is dead."""
    owner.acquire(folder, time.time())
    gone = replace(owner.read(folder) or pytest.fail("no stamp"), pid=2**22 + 1, beat_s=time.time() - ago_s)
    (folder / layout.OWNER).write_bytes(owner.encode(gone))


@pytest.mark.parametrize("ago_s", [3.0, 725.0])
def test_a_run_whose_driver_was_killed_says_since_when_and_what_continues_it(
    runs: Path, capsys: pytest.CaptureFixture[str], ago_s: float
) -> None:
    folder = runs / "r"
    killed(folder, ago_s)
    requests.write_status(folder, status_of())
    (layout.step_folder(folder / layout.CHECKPOINTS, 2)).mkdir(parents=True)
    (layout.step_folder(folder / layout.CHECKPOINTS, 2) / layout.MANIFEST).touch()
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - ago_s))
    assert control.status("r", str(runs)) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"run r interrupted: no sign of life of its driver, process {2**22 + 1} on ")
    assert f"since {since}" in first
    assert first.endswith("12 min 05 s ago" if ago_s > 60 else "3 s ago")
    assert others == [
        "it was running: step 3 of 8, lineage 1",
        f"checkpoint: {layout.step_folder(folder / layout.CHECKPOINTS, 2)}",
        f"`dynalign train {folder / layout.CONFIG} runs={runs}` continues it",
    ]
    with pytest.raises(UserError, match="is not running"):
        control.ask("r", str(runs), "stop")


def test_a_driver_that_was_killed_before_its_first_status_leaves_the_same_word(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(runs / "r", 100.0)
    assert control.status("r", str(runs)) == 0
    first, checkpoint, way_on = capsys.readouterr().out.splitlines()
    assert "no sign of life" in first
    assert checkpoint == "checkpoint: none yet, so that it begins with step 1"
    assert "continues it" in way_on


@pytest.mark.parametrize("name", [layout.OWNER, layout.STATUS, layout.SUMMARY])
@pytest.mark.parametrize("content", ["{", "[]", "3", '"x"', "null", "{}", "[" * 100_000, None])
def test_a_damaged_file_of_a_run_is_one_line_with_a_remedy(
    runs: Path, name: str, content: str | None
) -> None:
    file = runs / "r" / name
    if name != layout.SUMMARY:
        owner.acquire(runs / "r", time.time())
    file.unlink(missing_ok=True)
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    if name == layout.STATUS and content == "{}":
        return  # a status of which nothing is known yet
    with pytest.raises(RecordError, match=name) as damaged:
        control.status("r", str(runs))
    assert "; remove it" in str(damaged.value)


@pytest.mark.parametrize("workers", [-1, 0, 901])
def test_a_number_of_workers_that_no_ledger_serves_is_refused(runs: Path, workers: int) -> None:
    owner.acquire(runs / "r", time.time())
    requests.write_status(runs / "r", status_of())
    with pytest.raises(UserError, match=f"workers = {workers}: must be from 1 to 900"):
        control.scale("r", str(runs), workers)


def test_a_pool_is_scaled_within_its_bounds_only(runs: Path) -> None:
    owner.acquire(runs / "r", time.time())
    requests.write_status(runs / "r", status_of(workers_range=[2, 4]))
    with pytest.raises(UserError, match="workers = 1: must be from 2 to 4"):
        control.scale("r", str(runs), 1)


def test_a_scale_while_another_is_under_way_is_refused(runs: Path) -> None:
    owner.acquire(runs / "r", time.time())
    requests.write_status(runs / "r", status_of(settling=True, workers_wanted=3))
    with pytest.raises(UserError, match="is still on its way to 3 workers"):
        control.scale("r", str(runs), 2)


def test_a_run_that_has_ended_or_was_never_there_is_not_scaled(runs: Path) -> None:
    with pytest.raises(UserError, match="is not running"):
        control.scale("r", str(runs), 2)
    with pytest.raises(UserError, match="there is no such run"):
        control.scale("other", str(runs), 2)


def test_a_wanted_number_reaches_the_driver(runs: Path) -> None:
    owner.acquire(runs / "r", time.time())
    requests.write_status(runs / "r", status_of())
    with taking_requests(runs / "r") as taken:
        assert control.scale("r", str(runs), 5) == 0
    assert taken == [Request("scale", 5)]


def test_the_status_names_the_alarms_that_fire_and_what_to_do() -> None:
    alarm = {"name": "injection", "onset_step": 2, "fired_step": 3, "action": "warn", "words": "read them"}
    assert "alarm injection since step 3: read them" in control.status_lines("r", status_of(alarms=[alarm]))
    assert not any("alarm" in line for line in control.status_lines("r", status_of()))
