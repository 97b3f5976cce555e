"""A run folder in which a test opens one ledger actor after another, without Ray and with its own clock."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from dynalign.actors.coordinator.checkpoints import clear_spool
from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_spec import Batch, LedgerSpec
from dynalign.actors.ledger.worker_calls import COMPACT_BYTES
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.ledger.values import Delivered, Lease, ReportOutcome, ScoredGroup
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import layout, owner, spool
from dynalign.run_folder.layout import step_folder
from dynalign.run_folder.owner import Owner

RUN = RunSettings(
    name="small",
    model="none",
    steps=4,
    rollout=RolloutSettings(prompts_per_step=2),
    algorithm=AlgorithmSettings(max_staleness=1, max_refill=0.0),
    deadlines=DeadlineSettings(lease_s=100.0),
)


class Clock:
    """A clock that stands still until the test sets `now_s`, in seconds."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class LedgerFolder:
    """A run folder with its owner, and ledgers opened in it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.owner: Owner = owner.acquire(folder, now_s=1.0)

    async def ledger(
        self,
        step: int = 0,
        run: RunSettings = RUN,
        fsync: Callable[[int], object] = os.fsync,
        compact_bytes: int = COMPACT_BYTES,
    ) -> LedgerActor:
        spec = LedgerSpec(run, str(self.folder), self.owner.lineage, step, prompts_count=3)
        actor = LedgerActor(spec, self.clock, fsync, compact_bytes)
        await actor.start()
        assert await actor.offer(version((await actor.status()).committed_step, self.owner.lineage))
        return actor

    def scored(self, lease: Lease, reason: str | None = None) -> ScoredGroup:
        payload = f"group {lease.group_id}".encode()
        entry = spool.write(
            self.folder / "spool", layout.group_file(lease.group_id, lease.lineage, lease.attempt), payload
        )
        return ScoredGroup(
            lease.group_id, lease.attempt, lease.lineage, entry, lease.version, lease.version, reason
        )

    async def score(self, actor: LedgerActor, groups: int, reason: str | None = None) -> list[ScoredGroup]:
        made = [self.scored(lease, reason) for lease in await leases_of(actor, groups)]
        for group in made:
            assert await report(actor, group, f"handle {group.group_id}") == (
                "withheld" if reason else "scored"
            )
        return made

    async def train(self, actor: LedgerActor, step: int) -> Batch:
        await self.score(actor, 2)
        batch = await actor.take(step, deadline_s=0.0)
        await actor.commit(step, version(step))
        return batch

    async def checkpoint(self, actor: LedgerActor, step: int) -> None:
        folder = step_folder(self.folder / "checkpoints", step)
        folder.mkdir(parents=True)
        (folder / "ledger.msgpack").write_bytes(await actor.snapshot())

    async def forget(self, actor: LedgerActor, step: int) -> None:
        """Deletes spool files of steps up to `step`, as the coordinator does after a checkpoint."""
        await clear_spool(self.folder, self.owner.lineage, step, actor)


def version(step: int, lineage: int = 1) -> WeightVersion:
    return WeightVersion(lineage, step, b"", (), 0)


async def report(
    actor: LedgerActor, group: ScoredGroup, handle: object = None, worker: str = "worker-0"
) -> ReportOutcome:
    """One group alone."""
    (outcome,) = (await actor.report(worker, [Delivered(group, handle)])).outcomes
    return outcome


async def leases_of(actor: LedgerActor, groups: int, worker: str = "worker-0") -> list[Lease]:
    return [
        lease for lease in (await actor.lease(worker, groups, wait_s=0.0)).leases if isinstance(lease, Lease)
    ]


def tell(folder: Path, story: Callable[[LedgerFolder], Coroutine[Any, Any, None]]) -> None:
    """Runs `story` in a run folder at `folder`. Fails if it takes more than 20 s."""
    asyncio.run(asyncio.wait_for(story(LedgerFolder(folder)), timeout=20.0))
