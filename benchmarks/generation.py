"""Generation in the system against bare vLLM: `GroupMaker` with a judge that asks no engine, then the records
encoded as a worker does.
"""

import asyncio
import time
from collections.abc import Mapping

from dynalign.benchmarks import bare_vllm
from dynalign.benchmarks.alternate import alternated
from dynalign.benchmarks.rollout_side import RolloutSide
from dynalign.benchmarks.workload import Workload
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.engine.base import EngineRequest, request_seed
from dynalign.rollout.group_maker import GroupTask
from dynalign.rollout.records import Group


def no_verdict(prompt: str, completion: str) -> float:
    """The judge that costs nothing, so that only generation is measured."""
    return 0.0


def measure(workload: Workload) -> dict[str, list[float]]:
    return asyncio.run(_measure(workload))


async def _measure(workload: Workload) -> dict[str, list[float]]:
    judge_off = (
        "judge.kind=function",
        "judge.function=dynalign.benchmarks.generation:no_verdict",
        "judge.noise_fraction=0",
    )
    probes_off = ("rollout.gap_probes=0", "rollout.mismatch_fraction=0")
    side = await RolloutSide.start(workload, *judge_off, *probes_off)
    draws = workload.draws()
    requests = [request for draw in draws for request in _requests(side, draw)]

    async def all_in_flight() -> Mapping[str, float]:
        return {"generate_tokens_per_s": await _system_tokens_per_s(side, draws, len(draws))}

    async def as_shipped() -> Mapping[str, float]:
        return {
            "generate_tokens_per_s_as_shipped": await _system_tokens_per_s(
                side, draws, side.run.rollout.groups_in_flight
            )
        }

    async def bare() -> Mapping[str, float]:
        await bare_vllm.forget_prefixes(side.engine)
        started_s = time.monotonic()
        tokens = await bare_vllm.generate(side.engine, requests)
        return {"generate_tokens_per_s_bare_vllm": tokens / (time.monotonic() - started_s)}

    limited = side.run.rollout.groups_in_flight < len(draws)  # else as shipped is all in flight
    samples = await alternated([all_in_flight, bare, *([as_shipped] if limited else [])], workload.runs)
    await side.engine.close()
    return samples


async def _system_tokens_per_s(side: RolloutSide, draws: list[GroupTask], groups_in_flight: int) -> float:
    slots = asyncio.Semaphore(groups_in_flight)

    async def make(draw: GroupTask) -> int:
        async with slots:
            group = await side.maker.make(draw)
            await asyncio.to_thread(_encode, group)
        return sum(len(candidate.token_ids_T) for candidate in group.candidates_G)

    await bare_vllm.forget_prefixes(side.engine)
    started_s = time.monotonic()
    tokens = sum(await asyncio.gather(*map(make, draws)))
    return tokens / (time.monotonic() - started_s)


def _encode(group: Group) -> bytes:
    return encode([to_batch(group)])


def _requests(side: RolloutSide, draw: GroupTask) -> list[EngineRequest]:
    """What `GroupMaker.make` asks the engine for: the same contexts, lengths and seeds."""
    ids = side.contexts.sampling_context(draw.prompt.prompt)
    settings = side.run.rollout
    seeds = (request_seed(side.run.seed, draw.group_id, index) for index in range(settings.group_size))
    return [EngineRequest(ids, max_tokens=settings.max_completion_tokens, seed=seed) for seed in seeds]
