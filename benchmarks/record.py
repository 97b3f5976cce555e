"""The first step's groups, generated and scored as a rollout worker does it, for the jobs that score and
learn from them.
"""

import asyncio

from dynalign.benchmarks.rollout_side import RolloutSide
from dynalign.benchmarks.workload import Workload
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.run_folder import durable


def measure(workload: Workload) -> dict[str, list[float]]:
    """Writes `groups_file`; there is no figure in it."""
    asyncio.run(_record(workload))
    return {}


async def _record(workload: Workload) -> None:
    probes_off = ("judge.noise_fraction=0", "rollout.gap_probes=0", "rollout.mismatch_fraction=0")
    side = await RolloutSide.start(workload, *probes_off)
    groups = await asyncio.gather(*map(side.maker.make, workload.draws()))
    # Whole or not at all: a check that is ended here would find half of it in its next call.
    durable.write(workload.groups_file, encode([to_batch(group) for group in groups]))
    await side.engine.close()
