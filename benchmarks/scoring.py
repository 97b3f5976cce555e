"""Judgements with the prefixes shared, as the system judges, against the same judgements each computed whole.

Shared: definition and rubric are computed once for a weight version, the task once for a group. Both sides
begin with an empty cache.
"""

import asyncio
import time
from collections.abc import Mapping

from dynalign.benchmarks import bare_vllm
from dynalign.benchmarks.alternate import alternated
from dynalign.benchmarks.rollout_side import RolloutSide
from dynalign.benchmarks.workload import Workload
from dynalign.rollout.arrow_schema import decode, to_group
from dynalign.rollout.records import Group


def measure(workload: Workload) -> dict[str, list[float]]:
    return asyncio.run(_measure(workload))


async def _measure(workload: Workload) -> dict[str, list[float]]:
    side = await RolloutSide.start(workload)
    groups = [
        to_group(batch) for batch in decode(workload.groups_file.read_bytes(), str(workload.groups_file))
    ]

    async def shared() -> Mapping[str, float]:
        return {"judgements_per_s": await _judgements_per_s(side, groups, fresh=False)}

    async def unshared() -> Mapping[str, float]:
        return {"judgements_per_s_unshared": await _judgements_per_s(side, groups, fresh=True)}

    samples = await alternated(
        [shared, unshared], min(3, workload.runs)
    )  # half a minute each without sharing
    await side.engine.close()
    return samples


async def _judgements_per_s(side: RolloutSide, groups: list[Group], fresh: bool) -> float:
    """fresh: no request reads key-values that another has left."""
    await bare_vllm.forget_prefixes(side.engine)
    asked = [(group.prompt, [candidate.text for candidate in group.candidates_G]) for group in groups]
    started_s = time.monotonic()
    verdicts_PG = await asyncio.gather(
        *(side.judge.score(prompt, texts_G, 0, fresh) for prompt, texts_G in asked)
    )
    elapsed_s = time.monotonic() - started_s
    # An empty candidate scores 0 without being shown to the judge.
    return sum(verdict.status != "empty" for verdicts_G in verdicts_PG for verdict in verdicts_G) / elapsed_s
