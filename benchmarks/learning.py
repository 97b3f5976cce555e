"""The learner on recorded groups against plain torch on the same rows, and against the padded form of the
same groups.
"""

import asyncio
import time
from collections.abc import Mapping

import torch

from dynalign.benchmarks.alternate import alternated
from dynalign.benchmarks.bare_torch import BareTorch
from dynalign.benchmarks.floating_point import finish, product_operations_per_s, step_operations
from dynalign.benchmarks.learner_side import start_learner
from dynalign.benchmarks.workload import Workload
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import read_shape
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.rows.rows import Row, build_rows, plan_rows

SAME_NORM = 0.05
"""Largest relative difference of the first step's gradient norms: bfloat16 rounds them, other work would move
them much further."""


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RuntimeError when the three have not done the same work."""
    device = torch.device("cuda", 0) if workload.device == "gpu" else torch.device("cpu")
    run = workload.settings()
    torch.set_num_threads(run.learner.threads)
    full_speed = product_operations_per_s(device, workload.quick)
    payload = workload.groups_file.read_bytes()
    batch, rows_R = _packed(run, payload)
    tokens = sum(batch.lengths_N)
    learner = start_learner(workload)
    norms: dict[str, float] = {}

    def timed(name: str, norm: float, started_s: float) -> Mapping[str, float]:
        finish(device)
        norms.setdefault(name, norm)
        return {name: tokens / (time.monotonic() - started_s)}

    async def ours() -> Mapping[str, float]:
        started_s = time.monotonic()
        step = learner.step + 1
        learner.prepare(step, [payload], [workload.groups_file.name])
        report = learner.run(step)
        return timed("learn_tokens_per_s", report["grad_norm"] or 0.0, started_s)

    async def bare() -> Mapping[str, float]:
        started_s = time.monotonic()
        return timed("learn_tokens_per_s_bare_torch", plain.packed_step(rows_R), started_s)

    async def naive() -> Mapping[str, float]:
        started_s = time.monotonic()
        return timed("learn_tokens_per_s_padded", plain.padded_step(batch), started_s)

    runs = min(3, workload.runs)  # most of a minute a round on a CPU
    if workload.device == "gpu":  # it has no room for both, nor the noise that makes them take turns on a CPU
        samples = asyncio.run(alternated([ours], runs))
        learner.sleep()
        plain = BareTorch(workload.model_folder, run.learner, device)
        samples |= asyncio.run(alternated([bare, naive], runs))
    else:
        plain = BareTorch(workload.model_folder, run.learner, device)
        samples = asyncio.run(alternated([ours, bare, naive], runs))
    if max(norms.values()) - min(norms.values()) > SAME_NORM * norms["learn_tokens_per_s"]:
        raise RuntimeError(f"the first step's gradient norms differ, so the work did: {norms}")
    samples["product_tflops"] = [full_speed / 1e12]
    speeds = [
        step_operations(read_shape(workload.model_folder), rows_R) * rate / tokens
        for rate in samples["learn_tokens_per_s"]
    ]
    return samples | {"learn_mfu": [speed / full_speed for speed in speeds]}


def _packed(run: RunSettings, payload: bytes) -> tuple[TrainingBatch, list[Row]]:
    """The batch, and the rows that the learner makes of it."""
    batch = TrainingBatch.of(decode_groups([payload], ["recorded groups"]), run.algorithm.advantage_scale)
    plan = plan_rows(batch, range(len(batch.groups_P)), run, 1)
    return batch, build_rows(plan, 0, run.learner.logprob_chunk_tokens)
