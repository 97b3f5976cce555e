"""Measures an asynchronous `dynalign train`: wall time of a step against its slower side, and the peak memory
of each actor.

Held-out evaluation, TensorBoard and all checkpoints but the last are off, because they are no part of a step.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from dynalign.benchmarks.memory import PeakMemory
from dynalign.benchmarks.workload import CONFIGS, Workload
from dynalign.configs.errors import DeadlineExceeded, RunFailed
from dynalign.run_folder import layout
from dynalign.run_folder.layout import experience_file
from dynalign.run_folder.metrics import Row, read_metrics

WARM_UP_STEPS = 2
"""Steps that are left out: the pipeline is empty at first, and the learner waits for the first batch."""
ON_ONE_GPU = (
    "placement.mode=separate",
    "placement.rollout_gpu_fraction=0.3",
    "rollout.kv_cache_gib=16",
    "algorithm.max_staleness=1",
)
"""As shipped, engine and learner take turns on the GPU, and nothing overlaps. Here they share it, and slow
each other down. Of 80 GB the learner then needs 70 %."""
_SAMPLE_S = 0.5
_DEADLINE_S = 840.0  # below the job's own, so that the run is ended by name


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RunFailed with the run's last line."""
    steps = 4 if workload.quick else 8 if workload.device == "cpu" else 6
    runs = workload.scratch / "runs"
    overrides = [
        f"model={workload.model_folder}",
        f"runs={runs}",
        "name=benchmark",
        f"steps={steps}",
        f"checkpoint.every_steps={steps}",
    ]
    overrides += ["heldout.prompts=0", "tensorboard=false", *(ON_ONE_GPU if workload.device == "gpu" else ())]
    memory = train(CONFIGS[workload.device], workload.overrides(*overrides), workload.scratch / "train.log")
    folder = runs / "benchmark"
    samples = step_times(read_metrics(folder), folder / layout.EXPERIENCE)
    return samples | {f"memory_{name}_mib": [peak] for name, peak in memory.peaks_mib.items()}


def train(
    config: str,
    overrides: Sequence[str],
    log: Path,
    deadline_s: float = _DEADLINE_S,
    memory_of: Callable[[int], PeakMemory] = PeakMemory,
    meanwhile: Callable[[PeakMemory], None] | None = None,
) -> PeakMemory:
    """`dynalign train` to its end. Raises RunFailed with its last line, or DeadlineExceeded.

    memory_of: what samples the memory of the driver with this number. meanwhile: called after each sample.
    """
    environment = {
        name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"
    }  # a cluster of the run's own
    with log.open("w") as out:
        command = [sys.executable, "-m", "dynalign.launch.cli", "train", config, *overrides]
        driver = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        memory = memory_of(driver.pid)
        until_s = time.monotonic() + deadline_s
        while driver.poll() is None:
            if time.monotonic() > until_s:
                raise DeadlineExceeded("the run of the benchmark", deadline_s)
            memory.sample()
            if meanwhile is not None:
                meanwhile(memory)
            time.sleep(_SAMPLE_S)
    if driver.returncode:
        raise RunFailed(f"the run ended with {driver.returncode}: {log.read_text().strip().splitlines()[-1]}")
    return memory


def step_times(rows: Sequence[Row], experience: Path) -> dict[str, list[float]]:
    """Figure → its value of each step after the warm-up. experience: the folder of the steps' files."""
    trained = [row for row in rows if row["step"] > 0]
    steady = trained[WARM_UP_STEPS:]
    walls_s = step_walls_s(trained, experience)[WARM_UP_STEPS - 1 :]
    return {
        "step_wall_s": walls_s,
        "paused_fraction": [
            row["weight_sync_pause_s"] / wall_s for row, wall_s in zip(steady, walls_s, strict=True)
        ],
        "slower_side_s": [max(rollout_side_s(row), row["learn_s"]) for row in steady],
        "rollout_side_s": [rollout_side_s(row) for row in steady],
        "learn_s": [row["learn_s"] for row in steady],
    }


def step_walls_s(trained: Sequence[Row], experience: Path) -> list[float]:
    """Seconds from the end of each step to the end of the next: one value fewer than there are steps.

    The learner writes a step's experience last, so the times of these files are the ends of the steps.
    """
    ended_s = [experience_file(experience, row["step"]).stat().st_mtime for row in trained]
    return [later - earlier for earlier, later in pairwise(ended_s)]


def rollout_side_s(row: Row) -> float:
    """Seconds of a step in which the rollout side works: generate + score, which are measured apart and may
    overlap, and at most the time in which any group is in flight.
    """
    return float(min(row["generate_s"] + row["score_s"], (1 - row["rollout_idle_fraction"]) * row["step_s"]))
