"""A whole step by `dynalign train`, on work that TRL can do as well: one context, a verifiable reward, 64 new tokens.

    equal   bfloat16 over float32 weights on all cores of this machine, settings as shipped
    best    the settings that were found fastest for this work on two cores
"""

from importlib.resources import as_file, files
from pathlib import Path
from shutil import copytree

from actors.metrics import read_metrics
from benchmarks.whole_run import WARM_UP_STEPS, step_walls_s, train
from benchmarks.workload import Workload
from configs.load import load_run
from configs.schema import RunSettings
from rollout.contexts import load_contexts

BEST = ("rollout.groups_in_flight=4", "rollout.engine_threads=2", "learner.threads=2")
LAST_STEPS = 3
"""Steps at the end whose mean rewards are compared."""
_CONFIG = "verifiable"
_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's own template says where nobody says anything. Then candidates are sampled and learned in one context, as TRL does."""


def steps(workload: Workload, best: bool) -> int:
    """The run that is compared at equal settings is long enough to learn something."""
    return (4 if workload.quick else 5) if best else (4 if workload.quick else 9)


def overrides(workload: Workload, best: bool) -> tuple[str, ...]:
    """Of the run `verifiable`; whatever is no part of a step is off."""
    count = steps(workload, best)
    work = ["rollout.max_completion_tokens=64", "judge.function=rollout.reward_functions:short_words", "learner.learning_rate=5e-5"]
    work += [f"model={workload.model_folder}", f"judge.values={workload.scratch / 'values'}", f"steps={count}"]
    off = ["heldout.prompts=0", "tensorboard=false", f"checkpoint.every_steps={count}"]
    # A small trial's settings come last.
    return (*work, *off, *(BEST if best else ()), *workload.overrides())


def settings(workload: Workload, best: bool) -> RunSettings:
    return load_run(_CONFIG, overrides(workload, best)).settings


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RunFailed with the run's last line."""
    _write_values(workload.scratch / "values")
    _one_context(workload)
    equal_s, rewards = _run(workload, best=False)
    best_s, _ = _run(workload, best=True)
    return {"step_s": equal_s, "step_best_s": best_s, "reward_last_steps": rewards[-LAST_STEPS:]}


def _run(workload: Workload, best: bool) -> tuple[list[float], list[float]]:
    name = "step-best" if best else "step-equal"
    runs = workload.scratch / "runs"
    train(_CONFIG, [*overrides(workload, best), f"runs={runs}", f"name={name}"], workload.scratch / f"{name}.log")
    rows = [row for row in read_metrics(runs / name) if row["step"] > 0]
    return step_walls_s(rows, runs / name / "experience")[WARM_UP_STEPS - 1 :], [row["reward_mean"] for row in rows]


def _write_values(folder: Path) -> None:
    with as_file(files("rollout") / "values") as shipped:
        copytree(shipped, folder)
    (folder / "generation_system.txt").write_text(_SYSTEM)


def _one_context(workload: Workload) -> None:
    contexts = load_contexts(workload.model_folder, _SYSTEM, "2026-01-01")
    if contexts.sampling_context("Why?") != contexts.learning_context("Why?"):
        raise RuntimeError("the system prompt is not the one that the model's template writes by itself")
