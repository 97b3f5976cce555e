"""A pool of workers that grows and shrinks in a real run: by `dynalign scale`, and by the run's own rule."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dynalign.benchmarks.chaos.audit import audit
from dynalign.learner.experience import read_step
from dynalign.run_folder.events import Event, read_events
from tests.worlds.chaos_run import ENDLESS, finish, judged_by, steps
from tests.worlds.command import ENVIRONMENT, alive, dynalign, wait_for
from tests.worlds.product import ROOT
from tests.worlds.tiny_run import config, started

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def scale(folder: Path, workers: int) -> "subprocess.CompletedProcess[str]":
    command = dynalign("scale", str(folder), str(workers))
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)


def status(folder: Path) -> dict[str, Any]:
    file = folder / "status.json"
    if not file.exists():
        return {"workers": [], "workers_wanted": 0}
    return dict(json.loads(file.read_text()))


def serving(folder: Path) -> list[str]:
    return sorted(worker["name"] for worker in status(folder)["workers"] if worker["state"] == "serving")


def scaled(folder: Path) -> list[Event]:
    return [event for event in read_events(folder) if event.what == "scaled"]


def trained_by(folder: Path) -> set[str]:
    """The workers that made the groups of the last ten steps."""
    files = sorted((folder / "experience").glob("step-*.arrow"))[-10:]
    return {group.worker for file in files for group, _ in read_step(file)}


def test_an_operator_scales_down_and_up_while_the_run_goes_on_and_no_group_is_lost(tmp_path: Path) -> None:
    file, folder = config(tmp_path, algorithm={"max_staleness": 1}), tmp_path / "runs" / "tiny"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "rollout.workers=3")
    )
    wait_for(alive(process, lambda: steps(folder) > 3 and len(serving(folder)) == 3), "three workers")
    assert scale(folder, 1).returncode == 0
    wait_for(alive(process, lambda: serving(folder) == ["rollout-0"]), "one worker")
    now = steps(folder)
    wait_for(alive(process, lambda: steps(folder) > now + 2), "steps by the one that is left")
    asked = scale(folder, 3)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    wait_for(alive(process, lambda: status(folder)["workers_wanted"] == 3), "the number to be taken over")
    again = scale(folder, 2)
    assert again.returncode == 2
    assert "is still on its way to 3 workers" in again.stderr
    wait_for(
        alive(process, lambda: serving(folder) == ["rollout-0", "rollout-1.2", "rollout-2.2"]),
        "two more, of other names",
    )
    wait_for(
        alive(process, lambda: trained_by(folder) & {"rollout-1.2", "rollout-2.2"}),
        "groups of the new workers",
    )
    finish(file, folder, process)
    drained = [event.actor for event in read_events(folder) if event.what == "drains"]
    assert sorted(drained) == ["rollout-1", "rollout-2"]
    assert not [event for event in read_events(folder) if event.what == "died"]
    assert audit(folder, 1).late == 0


def test_a_second_driver_on_the_run_folder_is_refused_by_name(tmp_path: Path) -> None:
    file, folder = config(tmp_path), tmp_path / "runs" / "tiny"
    process = started(dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS))
    wait_for(alive(process, lambda: steps(folder) > 1), "the first steps")
    began_s = time.monotonic()
    again = dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS)
    second = subprocess.run(again, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert second.returncode == 2, second.stdout + second.stderr
    (line,) = [line for line in second.stderr.splitlines() if "tiny" in line]
    assert f"process {process.pid}" in line
    assert time.monotonic() - began_s < 60
    finish(file, folder, process, staleness=0)


def test_a_pool_with_bounds_grows_when_its_learner_starves_and_says_why(tmp_path: Path) -> None:
    file, folder = judged_by(tmp_path, "slow"), tmp_path / "runs" / "tiny"
    command = dynalign(
        "train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "rollout.workers={min: 1, max: 2}"
    )
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    wait_for(alive(process, lambda: serving(folder) == ["rollout-0", "rollout-1"]), "a second worker", 400)
    (grown,) = scaled(folder)
    assert "the learner starves: learner waited" in grown.detail
    assert subprocess.run(dynalign("stop", str(folder)), timeout=120).returncode == 0
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def test_a_pool_with_bounds_lets_idle_workers_go(tmp_path: Path) -> None:
    # Learning on these takes longer than this engine takes to generate them.
    heavy = {"prompts_per_step": 8, "max_completion_tokens": 200}
    file, folder = config(tmp_path, algorithm={"max_staleness": 1}, rollout=heavy), tmp_path / "runs" / "tiny"
    process = started(
        dynalign(
            "train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "rollout.workers={min: 1, max: 3}"
        )
    )
    wait_for(alive(process, lambda: steps(folder) > 1), "the first steps")
    assert scale(folder, 3).returncode == 0
    wait_for(alive(process, lambda: len(serving(folder)) == 3), "three workers")
    wait_for(
        alive(
            process, lambda: any("workers idle: learner waited" in event.detail for event in scaled(folder))
        ),
        "idleness",
        400,
    )
    wait_for(alive(process, lambda: len(serving(folder)) < 3), "a worker to be let go")
    finish(file, folder, process)
