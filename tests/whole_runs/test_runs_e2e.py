"""Runs that are interrupted, killed or damaged, and resumed; runs with ranks, adapters, and a real model."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from dynalign.configs.load import load_run
from dynalign.launch.commands.replay import weight_distances
from dynalign.launch.plan.machine import this_machine
from dynalign.learner.experience import read_step
from dynalign.rollout.ledger.log import committed, read
from dynalign.run_folder import checkpoint
from dynalign.run_folder.metrics import read_metrics
from tests.worlds.command import Ended, alive, dynalign, left_over, train, wait_for
from tests.worlds.tiny_run import config, started

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def losses(run_folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run_folder) if row["loss"] is not None]


def assert_same_training(one: Path, other: Path) -> None:
    """Figures that depend on the weights, and the last weights: the loss of one minibatch without KL term
    depends on neither."""
    for name in ("loss", "grad_norm", "entropy", "learning_rate"):
        figures = [
            [row[name] for row in read_metrics(run) if row["loss"] is not None] for run in (one, other)
        ]
        assert figures[0] == pytest.approx(figures[1], rel=1e-4, abs=1e-6), name
    hf = [checkpoint.newest_whole(run / "checkpoints") for run in (one, other)]
    assert hf[0] is not None
    assert hf[1] is not None
    model = Path(load_run(str(one / "config.yaml")).settings.model)
    apart, moved = weight_distances(hf[0] / "hf", hf[1] / "hf", model)
    assert moved > 0
    assert apart <= 0.01 * moved


def trained(run_folder: Path) -> list[tuple[int, ...]]:
    return [tuple(sorted(commit.group_ids)) for commit in committed(read(run_folder / "ledger.log"))]


def until(process: "subprocess.Popen[str]", file: Path, text: str, deadline_s: float) -> None:
    there = alive(process, lambda: file.exists() and text in file.read_text())
    wait_for(there, f"{file} never contained {text!r}", deadline_s)


def well(ended: Ended) -> None:
    assert ended.code == 0, ended.output
    assert ended.left_over == ()


def test_three_steps_and_three_more_are_six(tmp_path: Path) -> None:
    file = config(tmp_path)
    well(train(file, "name=straight"))
    well(train(file, "name=halves", "steps=3"))
    well(train(file, "name=halves"))
    straight, halves = tmp_path / "runs" / "straight", tmp_path / "runs" / "halves"
    assert trained(straight) == trained(halves)
    assert_same_training(straight, halves)


def test_three_steps_a_kill_and_three_more_are_six(tmp_path: Path) -> None:
    file = config(tmp_path)
    settings = yaml.safe_load(file.read_text()) | {
        "judge": {"kind": "function", "function": "tests.worlds.chaos_rewards:slow"}
    }
    file.write_text(yaml.safe_dump(settings))
    well(train(file, "name=straight"))
    folder = tmp_path / "runs" / "killed"
    process = started(dynalign("train", str(file), f"runs={tmp_path / 'runs'}", "name=killed"))
    until(process, folder / "checkpoints" / "step-000003" / "manifest.json", "step", 300)
    process.kill()
    process.wait(timeout=30)
    assert len(trained(folder)) < 6, "it was killed too late"
    well(train(file, "name=killed"))
    assert trained(tmp_path / "runs" / "straight") == trained(folder)
    assert_same_training(tmp_path / "runs" / "straight", folder)


def test_ctrl_c_ends_with_a_checkpoint_and_a_copy_of_the_folder_continues_elsewhere(tmp_path: Path) -> None:
    file = config(tmp_path, algorithm={"max_staleness": 1})
    folder = tmp_path / "runs" / "tiny"
    process = started(dynalign("train", str(file), f"runs={tmp_path / 'runs'}", "steps=100000"))
    until(process, folder / "metrics.jsonl", '"step": 5,', 300)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert left_over() == ()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "interrupted"
    done = summary["step"]
    shutil.copytree(folder, tmp_path / "elsewhere" / "tiny")
    well(train(file, f"runs={tmp_path / 'elsewhere'}", f"steps={done + 4}"))
    steps = trained(tmp_path / "elsewhere" / "tiny")
    groups = [group_id for step in steps for group_id in step]
    assert len(steps) == done + 4
    assert len(groups) == len(set(groups)) == 2 * (done + 4)


def test_a_killed_driver_leaves_no_process_and_its_run_continues(tmp_path: Path) -> None:
    file = config(tmp_path, algorithm={"max_staleness": 1})
    folder = tmp_path / "runs" / "tiny"
    process = started(dynalign("train", str(file), f"runs={tmp_path / 'runs'}", "steps=100000"))
    until(process, folder / "metrics.jsonl", '"step": 5,', 300)
    process.kill()
    process.wait(timeout=30)
    end_s = time.monotonic() + 60
    while left_over():
        assert time.monotonic() < end_s, left_over()
        time.sleep(0.5)
    newest = max(
        int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-??????")
    )
    well(train(file, f"steps={newest + 3}"))
    groups = [group_id for step in trained(folder) for group_id in step]
    assert len(groups) == len(set(groups)) == 2 * (newest + 3)


def test_a_damaged_checkpoint_is_refused_by_its_file_and_nothing_is_started(tmp_path: Path) -> None:
    file = config(tmp_path)
    well(train(file, "steps=3"))
    weights = next((tmp_path / "runs" / "tiny" / "checkpoints" / "step-000003" / "hf").glob("*.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    refused = train(file)
    assert refused.code == 2, refused.output
    assert weights.name in refused.output
    told = [line for line in refused.output.splitlines() if " WARNING " not in line]  # of the judge's worth
    assert len(told) == 1, told


def test_two_zero_3_ranks_lora_adapters_and_a_shared_device_run_through_the_whole_system(
    tmp_path: Path,
) -> None:
    file = config(tmp_path, rollout={"engine": "vllm"}, algorithm={"max_staleness": 1})
    well(train(file, "name=ranks", "steps=2", "learner.ranks=2", "learner.zero_stage=3"))
    well(
        train(
            file,
            "name=lora",
            "steps=2",
            "learner.lora={rank: 4, alpha: 8}",
            "learner.zero_stage=2",
            "learner.precision=bfloat16",
        )
    )
    well(train(file, "name=shared", "steps=2", "placement.mode=shared", "algorithm.max_staleness=0"))
    assert len(losses(tmp_path / "runs" / "shared")) == 2
    assert len(losses(tmp_path / "runs" / "ranks")) == len(losses(tmp_path / "runs" / "lora")) == 2


def test_the_real_model_with_a_sampled_judge_exports_a_model_that_the_system_loads_as_it_is(
    tmp_path: Path,
) -> None:
    settings = {
        "model": "smollm2-135m-instruct",
        "steps": 1,
        "rollout": {
            "prompts_per_step": 1,
            "group_size": 4,
            "max_completion_tokens": 32,
            # Without such instructions bfloat16 takes thirty times as long as float32.
            "dtype": "bfloat16" if this_machine(with_gpus=False).bfloat16 else "float32",
        },
        "judge": {"scorer": "sampled", "samples": 2},
        "algorithm": {"max_staleness": 0},
        "heldout": {"prompts": 0},
        "placement": {"object_store_gib": 2.0},
    }
    assert subprocess.run(dynalign("model", "fetch", "smollm2-135m-instruct"), timeout=600).returncode == 0
    file = tmp_path / "sampled.yaml"
    file.write_text(yaml.safe_dump(settings))
    well(train(file))
    folder = tmp_path / "runs" / "sampled"
    ((group, _),) = list(read_step(folder / "experience" / "step-000001.arrow"))
    read_verdicts = [c.verdict for c in group.candidates_G if c.verdict.status == "parsed"]
    assert read_verdicts
    assert all('"score"' in (verdict.text or "") for verdict in read_verdicts)
    out = tmp_path / "exported"
    assert subprocess.run(dynalign("export", str(folder), str(out)), timeout=120).returncode == 0
    well(train(file, "name=again", f"model={out}"))
    assert subprocess.run(dynalign("replay", str(folder)), timeout=300).returncode == 0
