"""Times a whole step of `dynalign train` on work that TRL can do as well: one context, a verifiable reward,
eight candidates of 64 new tokens.

Everything else is as `verifiable` is shipped: asynchronous, one core each for the engine and the learner,
bfloat16 over float32 weights.
"""

from importlib.resources import as_file, files
from pathlib import Path
from shutil import copytree

from dynalign.benchmarks.whole_run import WARM_UP_STEPS, step_walls_s, train
from dynalign.benchmarks.workload import Workload
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.rollout.contexts import load_contexts
from dynalign.run_folder import layout
from dynalign.run_folder.metrics import read_metrics

BEST = ("rollout.eager=false",)
"""Faster than what is shipped: the engine compiles its model, which takes a minute at every start."""
LAST_STEPS = 3
"""Steps at the end whose mean rewards are compared. By then both policies have learned from equally many
samples."""
_CONFIG = "verifiable"
_NAME = "whole-step"
_STEPS = 6
_QUICK_STEPS = 4
_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""The system prompt that the model's template writes when there is none. With it the sampling context equals
the learning context, as in TRL."""


def overrides(workload: Workload) -> tuple[str, ...]:
    """Overrides of the shipped run. What is no part of a step is switched off."""
    steps = _QUICK_STEPS if workload.quick else _STEPS
    work = [
        "rollout.max_completion_tokens=64",
        "judge.function=dynalign.rollout.judges.reward_functions:short_words",
        "learner.learning_rate=5e-5",
    ]
    work += ["learner.token_budget=4096"]  # as shipped, a step in one row
    work += [
        f"model={workload.model_folder}",
        f"judge.values={workload.scratch / 'values'}",
        f"steps={steps}",
    ]
    off = ["heldout.prompts=0", "tensorboard=false", f"checkpoint.every_steps={steps}"]
    return (*work, *off, *workload.overrides())  # a small trial's settings come last


def settings(workload: Workload) -> RunSettings:
    return load_run(_CONFIG, overrides(workload)).settings


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RunFailed with the run's last line."""
    write_values(workload.scratch / "values")
    _one_context(workload)
    shipped_s, rewards = _run(workload, _NAME)
    best_s, _ = _run(workload, f"{_NAME}-best", *BEST)
    return {"step_s": shipped_s, "step_best_s": best_s, "reward_last_steps": rewards[-LAST_STEPS:]}


def _run(workload: Workload, name: str, *more: str) -> tuple[list[float], list[float]]:
    """Seconds of every steady step, and all steps' mean rewards."""
    runs = workload.scratch / "runs"
    run = settings(workload)
    # The answers of a step may be `max_staleness` versions old: only so many steps later has the policy
    # learned from as many answers as TRL's.
    steps = run.steps + run.algorithm.max_staleness
    ours = [f"runs={runs}", f"name={name}", f"steps={steps}", f"checkpoint.every_steps={steps}", *more]
    train(_CONFIG, [*overrides(workload), *ours], workload.scratch / f"{name}.log")
    rows = [row for row in read_metrics(runs / name) if row["step"] > 0]
    return step_walls_s(rows, runs / name / layout.EXPERIENCE)[WARM_UP_STEPS - 1 :], [
        row["reward_mean"] for row in rows
    ]


def write_values(folder: Path) -> None:
    """The shipped value texts, with the system prompt that the model's own template writes."""
    with as_file(files("dynalign.rollout") / "values") as shipped:
        copytree(shipped, folder)
    (folder / "generation_system.txt").write_text(_SYSTEM)


def _one_context(workload: Workload) -> None:
    contexts = load_contexts(workload.model_folder, _SYSTEM, "2026-01-01")
    if contexts.sampling_context("Why?") != contexts.learning_context("Why?"):
        raise RuntimeError("the system prompt is not the one that the model's template writes by itself")
