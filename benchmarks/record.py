"""The first step's groups, generated and scored as a rollout worker does it, for the jobs that score and
learn from them.
"""

import asyncio

from dynalign.benchmarks.rollout_side import RolloutSide
from dynalign.benchmarks.workload import Workload
from dynalign.rollout.arrow_schema import encode, to_batch


def measure(workload: Workload) -> dict[str, list[float]]:
    """Writes `groups_file`; there is no figure in it."""
    asyncio.run(_record(workload))
    return {}


async def _record(workload: Workload) -> None:
    probes_off = ("judge.noise_fraction=0", "rollout.gap_probes=0", "rollout.mismatch_fraction=0")
    side = await RolloutSide.start(workload, *probes_off)
    groups = await asyncio.gather(*map(side.maker.make, workload.draws()))
    workload.groups_file.write_bytes(encode([to_batch(group) for group in groups]))
    await side.engine.close()
