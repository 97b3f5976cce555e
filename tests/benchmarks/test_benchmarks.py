"""The benchmark without its engines: arguments, figures and ratios, the form of what it writes, and the
processes that measure.
"""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from dynalign.benchmarks.__main__ import run_jobs
from dynalign.benchmarks.alternate import alternated
from dynalign.benchmarks.catalog import FIGURES, JOBS, RATIOS, chosen_ratios, jobs_for, module_of
from dynalign.benchmarks.memory import role
from dynalign.benchmarks.process import run_python
from dynalign.benchmarks.result import FORMAT, LEFT_OUT, Host, Result, figures_of, ratios_of
from dynalign.benchmarks.table import table_lines
from dynalign.benchmarks.workload import Workload
from dynalign.configs.errors import DeadlineExceeded, RunFailed, UserError
from tests.worlds.product import ROOT

RESULTS = ROOT / "benchmarks" / "results"
HOST = Host(
    cpu="A Processor",
    cores=2,
    memory_gib=23.4,
    gpus=[],
    system="Linux 6.1",
    python="3.11.7",
    packages={"torch": "2.13.0"},
    commit="0123456789ab+",
    load_average=0.1,
)
SAMPLES = {
    "generate_tokens_per_s": [190.0, 200.0, 180.0],
    "generate_tokens_per_s_bare_vllm": [200.0, 220.0, 160.0],
    "publish_to_loaded_s": [0.9],
    "generation_pause_s": [0.5],
    "bare_reload_s": [0.4],
}


def made_up(failures: Mapping[str, str] | None = None) -> Result:
    """A run with --only that measured two of three jobs."""
    chosen = ("generate_vs_bare_vllm", "score_shared_vs_unshared", "pause_vs_reload", "sync_vs_reload")
    figures = figures_of(SAMPLES)
    ratios, reasons = ratios_of(figures, chosen, {"scoring": "EngineError: it died"} | dict(failures or {}))
    made = "2026-01-01T00:00:00+00:00"
    chose = ["rollout.max_completion_tokens=64"]
    return Result(
        format=FORMAT,
        made=made,
        quick=False,
        settings=chose,
        host=HOST,
        figures=figures,
        ratios=ratios,
        reasons=reasons,
    )


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


# -- arguments -------------------------------------------------------------------------------------


def test_an_unknown_key_is_one_line_and_starts_nothing() -> None:
    started_s = time.monotonic()
    done = bench("--only", "learn_vs_pad")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "--only = 'learn_vs_pad': is no ratio of the benchmark; did you mean learn_vs_padded?\n"
    )
    assert time.monotonic() - started_s < 15


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    done = bench("--json", str(tmp_path / "nowhere" / "figures.json"))
    assert done.returncode == 2
    assert done.stderr.startswith("--json = ")
    assert done.stderr.count("\n") == 1


def test_all_unknown_keys_are_named_together() -> None:
    with pytest.raises(UserError) as refused:
        chosen_ratios("nonsense,sync_vs_reload,more nonsense")
    assert [mistake.value for mistake in refused.value.mistakes] == ["nonsense", "more nonsense"]


def test_keys_come_in_the_benchmarks_order_and_none_given_means_all() -> None:
    assert chosen_ratios("sync_vs_reload, generate_vs_bare_vllm") == (
        "generate_vs_bare_vllm",
        "sync_vs_reload",
    )
    assert chosen_ratios(None) == tuple(RATIOS)


def test_the_ratios_have_the_names_that_readers_of_the_file_know() -> None:
    names = "step_vs_trl_transformers step_vs_trl_vllm generate_vs_bare_vllm score_shared_vs_unshared"
    names += " learn_vs_bare_torch learn_vs_padded"
    names += " async_wall_vs_slower_side pause_vs_reload sync_vs_reload"
    names += " control_groups_per_s control_lease_p99_s control_efficiency_8"
    names += " alarms alarms_soon bias"
    assert list(RATIOS) == names.split()


def test_a_ratio_brings_the_jobs_whose_files_it_needs_and_no_others() -> None:
    assert jobs_for(["learn_vs_padded", "learn_vs_bare_torch"]) == ("record", "learning")
    assert jobs_for(["step_vs_trl_vllm"]) == ("whole_step", "trl_environment", "trl_vllm")
    assert jobs_for(RATIOS) == tuple(JOBS)


def test_every_ratio_stands_on_figures_and_every_job_on_a_module() -> None:
    for ratio in RATIOS.values():
        assert ratio.job is None or (ratio.job in JOBS and {ratio.over, ratio.under} - {""} <= set(FIGURES))
    for job in JOBS:
        assert importlib.util.find_spec(module_of(job)) is not None


def test_make_bench_takes_the_cuda_builds_where_there_is_a_gpu(tmp_path: Path) -> None:
    def planned() -> str:
        path = f"{tmp_path}:{os.environ['PATH']}"
        command = ["make", "--dry-run", "--always-make", "bench", "SET=rollout.dtype=float32"]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # as where the driver is missing
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert re.search(
        r" requirements/cpu.txt\n\.venv/bin/python -m dynalign.benchmarks +rollout.dtype=float32\n", planned()
    )
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: made up'\n")
    assert re.search(
        r" requirements/gpu.txt\n\.venv-gpu/bin/python -m dynalign.benchmarks +rollout.dtype=float32\n",
        planned(),
    )


# -- figures, ratios, their form -------------------------------------------------------------------


def test_a_figure_is_the_median_with_its_extremes_and_a_ratio_the_quotient_of_two_medians() -> None:
    result = made_up()
    figure = result.figures["generate_tokens_per_s"]
    assert (figure.median, figure.min, figure.max, figure.n, figure.unit) == (
        190.0,
        180.0,
        200.0,
        3,
        "tokens/s",
    )
    assert result.ratios["generate_vs_bare_vllm"] == pytest.approx(190 / 200)
    assert result.ratios["pause_vs_reload"] == pytest.approx(1.25)
    assert result.ratios["sync_vs_reload"] == pytest.approx(2.25)


def test_a_ratio_that_was_not_measured_is_null_with_its_reason() -> None:
    result = made_up()
    assert result.ratios["learn_vs_padded"] is None
    assert result.reasons["learn_vs_padded"] == LEFT_OUT
    assert result.reasons["score_shared_vs_unshared"] == "EngineError: it died"
    assert "sync_vs_reload" not in result.reasons


def test_what_is_written_reads_back_as_the_same_result() -> None:
    result = made_up()
    assert Result.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("ratios", "sync_vs_reload"), 1.0),  # not what its figures give
        (("ratios", "sync_vs_reload"), None),  # null without a reason
        (("ratios", "step_vs_others"), 1.0),  # no such key
        (("reasons", "sync_vs_reload"), "measured, and yet a reason"),
        (("figures", "bare_reload_s", "median"), 0.3),  # below its own minimum
        (("figures", "bare_reload_s", "n"), 0),
        (("host", "hostname"), "mine"),
        (("format",), 2),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(key: tuple[str, ...], value: object) -> None:
    document = json.loads(made_up().model_dump_json())
    inner = document
    for part in key[:-1]:
        inner = inner[part]
    inner[key[-1]] = value
    with pytest.raises(ValidationError):
        Result.model_validate_json(json.dumps(document))


def test_every_kept_result_has_the_form_and_is_no_trial() -> None:
    for file in RESULTS.glob("*.json"):
        assert not Result.model_validate_json(file.read_text()).quick, file.name


def test_the_table_shows_every_figure_every_ratio_and_what_falls_short() -> None:
    result = made_up()
    lines = list(table_lines(result))
    for name in [*SAMPLES, *RATIOS]:
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert "with rollout.max_completion_tokens=64" in lines
    ours = next(line for line in lines if line.startswith("generate_tokens_per_s "))
    assert ours.split()[1:4] == ["190.0", "180.0", "200.0"]
    short = [line.split()[0] for line in lines if line.endswith("falls short")]
    assert short == ["sync_vs_reload"]


# -- how it is measured ----------------------------------------------------------------------------


def test_contestants_take_turns_first_and_the_warm_up_round_is_dropped() -> None:
    calls: list[str] = []

    async def one() -> Mapping[str, float]:
        calls.append("one")
        return {"a": float(len(calls)), "b": 0.0}

    async def two() -> Mapping[str, float]:
        calls.append("two")
        return {"c": float(len(calls))}

    samples = asyncio.run(alternated([one, two], runs=2))
    assert calls == ["two", "one", "one", "two", "two", "one"]
    assert samples == {"a": [3.0, 6.0], "b": [0.0, 0.0], "c": [4.0, 5.0]}


def test_processes_are_told_apart_by_their_titles() -> None:
    titles = [
        "VLLM::EngineCore",
        "ray::RolloutWorker.serve",
        "ray::LearnerRank",
        "raylet",
        "ray::IDLE",
        "python",
    ]
    assert [role(title) for title in titles] == [
        "engine_core",
        "rollout_worker",
        "learner",
        "raylet",
        "ray_others",
        "ray_others",
    ]


def test_a_job_that_fails_says_why_in_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="^ValueError: no such thing$"):
        run_python(["-c", "raise ValueError('no such thing')"], tmp_path / "log", deadline_s=30)


def test_a_job_past_its_deadline_is_gone_with_all_that_it_has_started(tmp_path: Path) -> None:
    script = "import os, subprocess, time; child = subprocess.Popen(['sleep', '60']); "
    script += "print(child.pid, os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(DeadlineExceeded):
        run_python(["-c", script], tmp_path / "log", deadline_s=2)
    pids = [int(pid) for pid in (tmp_path / "log").read_text().split()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_a_failed_job_leaves_in_its_session_is_gone_too(tmp_path: Path) -> None:
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); "
    script += "sys.exit('half-way')"
    with pytest.raises(RunFailed, match="half-way"):
        run_python(["-c", script], tmp_path / "log", deadline_s=30)
    orphan = int((tmp_path / "log").read_text().split()[0])
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE


def test_what_is_compared_on_cpus_alone_is_null_on_a_gpu_and_no_failure(tmp_path: Path) -> None:
    def run(name: str, workload: Workload) -> dict[str, list[float]]:
        return {name: [1.0]}

    on_gpu = Workload(tmp_path, tmp_path, tmp_path, quick=True, device="gpu")
    ran, failures, impossible = run_jobs(jobs_for(RATIOS), on_gpu, run)
    assert not failures
    assert set(impossible) == {"whole_step", "trl_environment", "trl_transformers", "trl_vllm", "bias"}
    assert set(ran) == set(JOBS) - set(impossible)
    _, _, impossible = run_jobs(jobs_for(RATIOS), replace(on_gpu, device="cpu"), run)
    assert not impossible


def test_what_was_measured_before_an_interruption_is_kept(tmp_path: Path) -> None:
    def run(name: str, workload: Workload) -> dict[str, list[float]]:
        if name == "generation":
            raise KeyboardInterrupt
        return {name: [1.0]}

    workload = Workload(tmp_path, tmp_path, tmp_path, quick=True)
    ran, failures, _ = run_jobs(("record", "generation", "scoring"), workload, run)
    assert (ran, failures) == ({"record": [1.0]}, {"generation": "interrupted", "scoring": "interrupted"})


def test_settings_that_do_not_exist_are_one_line_each_and_start_nothing() -> None:
    done = bench("rollout.max_completion=512", "learner.threads=-1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 2)


def test_a_model_that_is_not_to_be_had_is_one_line_and_starts_nothing() -> None:
    done = bench("model=./no-such-folder")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("model = './no-such-folder': is no folder")
