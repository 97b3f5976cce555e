"""Whole runs of the check: `dynalign train` on the shipped `single-gpu`, with shorter completions.

A dry run has the same settings, and then those of a CPU with tiny shapes behind them.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalign.benchmarks.gpu_check.actor_memory import ActorMemory
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.memory import PeakMemory
from dynalign.benchmarks.whole_run import train
from dynalign.benchmarks.workload import Device
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import read_shape
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.run_folder import layout
from dynalign.run_folder.metrics import Row, read_metrics

CONFIG = "single-gpu"
_ALWAYS = (
    "date=2026-01-01",
    "tensorboard=false",
    "heldout.prompts=0",
    "judge.min_digit_mass=0",  # a random model is no judge
    "judge.noise_fraction=0",  # whose scores differ by little: none is to be withheld as noise
    "learner.learning_rate=1e-4",  # large, so that every step moves the weights
    "learner.warmup_steps=0",
    "rollout.max_completion_tokens=256",
    "checkpoint.every_steps=1000",  # at the end alone
    "checkpoint.keep_last=1",
)
_TINY = (
    "placement.device=cpu",
    "placement.object_store_gib=0.2",
    "prompts.max_tokens=1400",
    "rollout.prompts_per_step=2",
    "rollout.group_size=4",
    "rollout.groups_in_flight=2",
    "rollout.max_completion_tokens=16",
    "rollout.kv_cache_gib=0.2",
    "rollout.block_size=32",
    "rollout.max_sequences=16",
    "rollout.eager=true",
    "learner.token_budget=2048",
    "learner.logprob_chunk_tokens=256",
)
SPLIT: dict[Device, tuple[str, ...]] = {
    "gpu": (
        "placement.mode=separate",
        "placement.rollout_gpu_fraction=0.4",
        "rollout.kv_cache_gib=12",
        "algorithm.max_staleness=1",
        "weights.transport=ipc",
    ),
    "cpu": ("placement.mode=separate", "algorithm.max_staleness=1"),
}
"""Engine and learner at once on one GPU; on a CPU, by the transport that `auto` chooses."""
FALLBACK = "takes it from the object store"
"""What a worker's log says of a version that it did not get by the run's transport."""


def overrides(site: Site, model: Path, *more: str) -> tuple[str, ...]:
    """The overrides of `single-gpu`. In a dry run, those of the tiny shapes come last."""
    tiny = _TINY if site.device == "cpu" else ()
    return (f"model={model}", f"runs={site.own / 'runs'}", *_ALWAYS, *more, *tiny)


def settings_of(chosen: Sequence[str]) -> RunSettings:
    """The settings of a run with these overrides."""
    return load_run(CONFIG, chosen).settings


@dataclass(frozen=True)
class Trained:
    """A run that has ended well.

    Example: `Trained(Path("runs/first"), {"learner": 2048.0}, "step 6 …", [{"step": 1, …}])`.
    """

    folder: Path
    """Its run folder."""
    peaks_mib: dict[str, float]
    """Peak memory by role (`actor_memory.py`)."""
    told: str
    """All that it wrote."""
    rows: list[Row]
    """Its metrics of the steps that were trained, as they were at its end: going on adds to them."""


def trained(
    site: Site, chosen: Sequence[str], steps: int, meanwhile: Callable[[PeakMemory], None] | None = None
) -> Trained:
    """`dynalign train` to step `steps`, with its log, metrics and events kept.

    meanwhile: called about twice a second with the memory that has just been sampled.

    Raises RunFailed with the run's last line, or where it has not trained each step once."""
    log = site.note(f"train-{steps}.log")
    name = f"name={site.stage}"
    folder = site.own / "runs" / site.stage
    try:
        memory = train(
            CONFIG,
            (*chosen, name, f"steps={steps}"),
            log,
            max(site.left_s, 1.0),
            lambda driver: ActorMemory(driver, site.device),
            meanwhile,
        )
    finally:
        for file in (layout.METRICS, layout.EVENTS):
            if (folder / file).exists():
                shutil.copy(folder / file, site.note(file))
    rows = [row for row in read_metrics(folder) if row["step"] > 0]
    done = Trained(folder, memory.peaks_mib, log.read_text(errors="replace"), rows)
    found = [row["step"] for row in rows]
    require(found == list(range(1, steps + 1)), f"the run trained steps {found}, not each of 1 to {steps}")
    return done


def planned(chosen: Sequence[str], model: Path) -> PlacementPlan:
    """What the plan says of such a run on this machine."""
    settings = settings_of(chosen)
    machine = this_machine(settings.placement.device == "gpu")
    longest = settings.prompts.max_tokens + settings.rollout.max_completion_tokens
    return plan(settings, read_shape(model), Cluster((machine,), started_here=True), longest)
