"""An experiment with real runs on a tiny model and a verifiable reward: killed once, continued, concluded.

Two arms with three seeds are six runs, each with a Ray, a learner and an engine of its own: minutes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dynalign.run_folder import layout
from tests.worlds.command import ENVIRONMENT, dynalign, left_over, wait_for
from tests.worlds.tiny_run import config

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FUNCTION = {
    "kind": "function",
    "function": "dynalign.rollout.judges.reward_functions:short_words",
    "noise_fraction": 0.0,
}
RUNS = [f"{arm}-s{seed}" for seed in range(3) for arm in ("k0", "k1")]


def test_an_experiment_that_is_killed_goes_on_and_repeats_no_finished_run(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        rollout={"gap_probes": 0, "mismatch_fraction": 0.0},
        judge=FUNCTION,
        heldout={"prompts": 4, "every_steps": 2, "prompted": False},
    )
    folder = tmp_path / "experiment"
    command = dynalign("experiment", "staleness", str(file), "steps=2", "arms=k0,k1", "--out", str(folder))
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    first = folder / "runs" / RUNS[0] / layout.SUMMARY
    wait_for(lambda: first.exists() and (folder / "runs" / RUNS[1]).is_dir(), "the first run ends")
    finished_at = first.stat().st_mtime
    os.kill(process.pid, signal.SIGKILL)  # its run is asked to stop by the kernel
    process.wait(30)
    wait_for(lambda: not left_over(), "the run of a killed experiment ends", 180.0)
    started_s = time.monotonic()
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=700)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert first.stat().st_mtime == finished_at
    assert f"{RUNS[0]} starts" not in ended.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["finished"] is True
    assert [each["outcome"]["state"] for each in report["runs"]] == ["finished"] * 6
    assert report["measures"][0]["differences"][0]["found"]["seeds"] == 3
    assert not list(folder.glob(f"runs/*/{layout.CHECKPOINTS}"))
    assert time.monotonic() - started_s < 600


@pytest.mark.timeout(2400)
def test_the_counted_form_of_rubric_measures_how_far_a_planted_bias_lifts_each_judge(tmp_path: Path) -> None:
    file = config(tmp_path, judge=FUNCTION)
    folder = tmp_path / "experiment"
    command = dynalign("experiment", "rubric", str(file), "--small", "--out", str(folder))
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=2300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "estimated: " in ended.stdout
    report = json.loads((folder / "report.json").read_text())
    levels = {table["measure"]["name"]: table["levels"] for table in report["measures"]}
    for measure in ("judged", "bias_lift", "bias_lift_in_sd", "self_praise_lift"):
        assert set(levels[measure]) == {"unified", "mean"}, measure
    assert levels["bias_lift"]["unified"]["mean"] > levels["bias_lift"]["mean"]["mean"]
    assert all(run["values"]["no_signal_fraction"] < 1.0 for run in report["runs"])
    assert not (folder / "judged.json").exists(), "nobody is asked where the value is counted"
