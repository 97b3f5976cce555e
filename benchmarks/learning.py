"""The learner on recorded groups against plain torch on the same rows, and against the padded form of the same groups."""

import asyncio
import time
from collections.abc import Mapping

import torch

from benchmarks.alternate import alternated
from benchmarks.bare_torch import packed_model, padded_model
from benchmarks.learner_side import start_learner
from benchmarks.workload import Workload
from configs.schema import RunSettings
from learner.batch import TrainingBatch, decode_groups
from learner.rows import Row, build_rows, plan_rows

SAME_NORM = 0.05
"""Largest relative difference of the first step's gradient norms: bfloat16 rounds them, other work would move them much further."""


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RuntimeError when the three have not done the same work."""
    torch.set_num_threads(1)
    run = workload.settings()
    payload = workload.groups_file.read_bytes()
    batch, rows_R = _packed(run, payload)
    tokens = sum(batch.lengths_N)
    learner = start_learner(workload)
    packed, padded = packed_model(workload.model_folder, run.learner), padded_model(workload.model_folder, run.learner)
    norms: dict[str, float] = {}

    async def ours() -> Mapping[str, float]:
        started_s, step = time.monotonic(), learner.step + 1
        learner.prepare(step, [payload], [workload.groups_file.name])
        report = learner.run(step)
        norms.setdefault("learner", report["grad_norm"] or 0.0)
        return {"learn_tokens_per_s": tokens / (time.monotonic() - started_s)}

    async def bare() -> Mapping[str, float]:
        started_s = time.monotonic()
        norms.setdefault("bare torch", packed.packed_step(rows_R))
        return {"learn_tokens_per_s_bare_torch": tokens / (time.monotonic() - started_s)}

    async def naive() -> Mapping[str, float]:
        started_s = time.monotonic()
        norms.setdefault("padded", padded.padded_step(batch))
        return {"learn_tokens_per_s_padded": tokens / (time.monotonic() - started_s)}

    samples = asyncio.run(alternated([ours, bare, naive], min(3, workload.runs)))  # most of a minute a round
    if max(norms.values()) - min(norms.values()) > SAME_NORM * norms["learner"]:
        raise RuntimeError(f"the first step's gradient norms differ, so the work did: {norms}")
    return samples


def _packed(run: RunSettings, payload: bytes) -> tuple[TrainingBatch, list[Row]]:
    """The batch, and the rows that the learner makes of it."""
    batch = TrainingBatch.of(decode_groups([payload], ["recorded groups"]), run.algorithm.advantage_scale)
    plan = plan_rows(batch, range(len(batch.groups_P)), run, 1)
    return batch, build_rows(plan, 0, run.learner.logprob_chunk_tokens)
