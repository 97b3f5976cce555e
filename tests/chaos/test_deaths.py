"""Kills in a real run: with real Ray and a real learner, and with vLLM where the engine is killed."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dynalign.benchmarks.chaos.audit import audit
from dynalign.run_folder.events import read_events
from tests.worlds.chaos_run import ENDLESS, finish, judged_by, steps
from tests.worlds.command import ENVIRONMENT, Ended, alive, dynalign, left_over, running, wait_for
from tests.worlds.product import ROOT
from tests.worlds.tiny_run import config, started

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def processes(title: str) -> list[psutil.Process]:
    """The processes of this test run whose command line begins with `title`."""
    found = []
    for process in running(title):
        with suppress(psutil.NoSuchProcess):
            if process.status() != "zombie":
                found.append(process)
    return found


def recovered(folder: Path, kind: str) -> bool:
    return any(event.kind == kind and event.what == "recovered" for event in read_events(folder))


def died_of(folder: Path, kind: str) -> list[str]:
    return [event.cause for event in read_events(folder) if event.kind == kind and event.what == "died"]


def test_a_worker_a_ledger_a_coordinator_and_a_learner_die_one_after_the_other(tmp_path: Path) -> None:
    file, folder = config(tmp_path, algorithm={"max_staleness": 1}), tmp_path / "runs" / "tiny"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "rollout.workers=2")
    )
    wait_for(alive(process, lambda: steps(folder) > 5), "the first steps")
    for title, kind in (
        ("RolloutWorker", "worker"),
        ("LedgerActor", "ledger"),
        ("Coordinator", "coordinator"),
        ("LearnerRank", "learner"),
    ):
        processes(f"ray::{title}")[0].kill()
        wait_for(lambda kind=kind: recovered(folder, kind), f"the {kind} to be replaced")
        now = steps(folder)
        wait_for(lambda now=now: steps(folder) > now + 2, f"steps after the {kind} was replaced")
        assert died_of(folder, kind) == ["died"]
    finish(file, folder, process)


def test_a_worker_that_hangs_is_ended_with_its_children_and_replaced(tmp_path: Path) -> None:
    file, folder = config(tmp_path, algorithm={"max_staleness": 1}), tmp_path / "runs" / "tiny"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "deadlines.silence_s=5")
    )
    wait_for(alive(process, lambda: steps(folder) > 5), "the first steps")
    (hung,) = processes("ray::RolloutWorker")
    hung.suspend()
    wait_for(lambda: recovered(folder, "worker"), "the worker to be replaced")
    assert died_of(folder, "worker") == ["hung"]
    wait_for(
        lambda: not psutil.pid_exists(hung.pid) or hung.status() == "zombie",
        "the hung process to be gone",
        20,
    )
    finish(file, folder, process)


@pytest.mark.parametrize(("blow", "cause"), [(signal.SIGKILL, "failed"), (signal.SIGSTOP, "hung")])
def test_the_engine_process_inside_a_worker_dies_or_hangs(
    tmp_path: Path, blow: signal.Signals, cause: str
) -> None:
    file = config(tmp_path, rollout={"engine": "vllm"}, algorithm={"max_staleness": 1})
    folder = tmp_path / "runs" / "tiny"
    limits = ["deadlines.group_s=40", "weights.deadline_s=40", "deadlines.silence_s=30"]
    process = started(dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, *limits))
    wait_for(alive(process, lambda: steps(folder) > 3), "the first steps")
    processes("VLLM::EngineCore")[0].send_signal(blow)
    wait_for(lambda: recovered(folder, "worker"), "the worker to be replaced", 400)
    assert set(died_of(folder, "worker")) <= {cause, "weights", "hung"}
    now = steps(folder)
    wait_for(lambda: steps(folder) > now + 1, "steps after the worker was replaced")
    finish(file, folder, process)


def prompts(folder: Path) -> str:
    file = folder / "tasks.jsonl"
    texts = [
        "Plan a garden.",
        "Tie a knot.",
        "Teach a child to count.",
        "Settle a quarrel.",
        "Design a bench.",
    ]
    file.write_text(
        "".join(json.dumps({"id": f"p{index}", "prompt": text}) + "\n" for index, text in enumerate(texts))
    )
    return f"prompts.source={file}"


def in_the_checkout(*arguments: str) -> Ended:
    began_s = time.monotonic()
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        dynalign(*arguments), capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT
    )
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - began_s, left_over())


def test_a_prompt_that_breaks_its_workers_is_withheld_with_its_reason_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    file = judged_by(tmp_path, "breaks_on_knots")
    ended = in_the_checkout(
        "train",
        str(file),
        f"runs={tmp_path / 'runs'}",
        prompts(tmp_path),
        "steps=4",
        "supervision.restarts=20",
    )
    folder = tmp_path / "runs" / "tiny"
    assert (ended.code, ended.left_over) == (0, ()), ended.output
    kept = [json.loads(line) for line in (folder / "poison.jsonl").read_text().splitlines()]
    assert {line["prompt"] for line in kept} == {"Tie a knot."}
    assert len(kept[0]["workers"]) == 3
    found = audit(folder, 1, poison=["Tie a knot."])
    assert found.mistakes == ()
    assert found.withheld >= 1
    assert "poison" in json.loads((folder / "summary.json").read_text())["withheld_by_reason"]


def test_beyond_its_budget_a_run_ends_with_the_cause_and_no_process(tmp_path: Path) -> None:
    file = judged_by(tmp_path, "breaks_always")
    limits = ["supervision.restarts=2", "supervision.poison_attempts=100"]
    ended = in_the_checkout(
        "train", str(file), f"runs={tmp_path / 'runs'}", prompts(tmp_path), "steps=4", *limits
    )
    assert (ended.code, ended.left_over) == (1, ()), ended.output
    assert "rollout-0 ended 3 times in 3600 s" in ended.output


def test_beyond_its_budget_a_run_that_has_trained_ends_with_a_whole_checkpoint_and_goes_on_later(
    tmp_path: Path,
) -> None:
    file, folder = judged_by(tmp_path, "breaks_after_fifty"), tmp_path / "runs" / "tiny"
    limits = ["supervision.restarts=1", "supervision.poison_attempts=100", "checkpoint.every_steps=10000"]
    ended = in_the_checkout("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, *limits)
    assert (ended.code, ended.left_over) == (1, ()), ended.output
    assert "rollout-0 ended 2 times in 3600 s" in ended.output
    done = json.loads((folder / "summary.json").read_text())["step"]
    assert done > 3
    assert (folder / "checkpoints" / f"step-{done:06d}" / "manifest.json").is_file()
    again = in_the_checkout("train", str(file), f"runs={tmp_path / 'runs'}", f"steps={done + 3}", *limits[1:])
    assert (again.code, again.left_over) == (0, ()), again.output
    assert audit(folder, 1).mistakes == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_its_stated_time_with_a_checkpoint_and_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    file, folder = config(tmp_path, algorithm={"max_staleness": 1}), tmp_path / "runs" / "tiny"
    process = started(
        dynalign("train", str(file), f"runs={tmp_path / 'runs'}", *ENDLESS, "checkpoint.every_steps=10000")
    )
    wait_for(alive(process, lambda: steps(folder) > 4), "the first steps")
    began_s = time.monotonic()
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert time.monotonic() - began_s < 60
    assert left_over() == ()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "interrupted"
    assert (folder / "checkpoints" / f"step-{summary['step']:06d}" / "manifest.json").is_file()
