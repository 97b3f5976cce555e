"""Simulated rollout workers: the real lease loop, spool, objects and calls; an engine that sleeps.

    closed   each worker has `slots` leases in flight, as a rollout worker does    for groups per second
    open     leases fall due by a Poisson process, independent of earlier ones      for the latency of a lease
    both     each worker waits for every new version, renews its leases, and answers the supervision

Many workers share a process, because a thousand processes do not fit a small machine; so the CPU time of the
workers counts against the control plane here. A second process per host (`Vitals`) answers calls to all
workers at once, such as the coordinator's after a step, so that they do not delay the leases that are timed.
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.lease_loop import POLL_S, LeaseLoop
from dynalign.actors.worker.protocol import WorkerStats
from dynalign.actors.worker.version_news import VersionNews
from dynalign.benchmarks.control.protocol import HostHandle, VitalsHandle
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.values import Delivered, Lease, ScoredGroup
from dynalign.run_folder import layout, spool
from dynalign.run_folder.spool import SpoolEntry

STATS = WorkerStats(
    name="",
    version=0,
    groups_in_flight=0,
    completion_tokens_total=0,
    judgements_total=0,
    judge_failures_total=0,
    judge_failure="",
    generate_s=0.0,
    score_s=0.0,
    idle_s=0.0,
    weight_sync_s=0.0,
    weight_sync_pause_s=0.0,
    weight_syncs=0,
    weight_fallbacks=0,
)
"""What a simulated worker answers to `stats`."""
_JITTER = 0.5  # answers are of different lengths: engines do not finish in step


class SimulatedWorker:
    """One worker. engine_s: how long its engine sleeps over a group, on average. made: called after each
    group delivered.
    """

    def __init__(
        self,
        name: str,
        spec: RunSpec,
        ledger: LedgerLink,
        payload: bytes,
        engine_s: float,
        slots: int,
        made: Callable[[], None],
    ) -> None:
        self.name = name
        self._ledger = ledger
        self._payload = payload
        self._engine_s = engine_s
        self._made = made
        self._spool = Path(spec.run_folder) / layout.SPOOL
        self.news = VersionNews(name, ledger)
        self.leases = LeaseLoop(name, ledger, slots, self._spool, spec.run.deadlines, self.work, self.news)
        self._held = (0, 0)
        self._loaded = asyncio.Condition()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            versions = [group.create_task(loop) for loop in (self.versions(), self.news.poll())]
            await self.leases.run(group)
            for loop in versions:
                loop.cancel()

    async def versions(self) -> None:
        """The weight loop; there is nothing to load."""
        while True:
            version = await self.news.next(self._held)
            self._held = (version.lineage, version.step)
            async with self._loaded:
                self._loaded.notify_all()

    async def generate(self, lease: Lease) -> None:
        async with self._loaded:
            await self._loaded.wait_for(lambda: self._held >= (lease.lineage, lease.version))
        await asyncio.sleep(self._engine_s * random.uniform(1 - _JITTER, 1 + _JITTER))

    async def work(self, lease: AnyLease) -> None:
        assert isinstance(lease, Lease)  # nothing is held out
        await self.generate(lease)
        await self.leases.deliver(lease, self._payload, (lease.version, lease.version))
        self._made()

    async def one(self, due_s: float, finished: list[Delivered]) -> float:
        """One lease that fell due at `due_s` on the monotonic clock, and its group, without the lease loop:
        that asks when a slot is free, and not by the clock. As there, one call reports what is finished and
        takes the lease. finished: of all workers of the process. How long after `due_s` the lease was there.
        """
        reported = list(finished)
        finished[:] = []
        answer = await self._ledger.report(self.name, reported, 1, True, self.news.known)
        if not answer.leases:
            answer = await self._ledger.lease(self.name, 1, POLL_S, True, self.news.known)
        self.news.tell(answer.version)
        late_s = time.monotonic() - due_s
        for lease in answer.leases:
            assert isinstance(lease, Lease)
            await self.generate(lease)
            name = layout.group_file(lease.group_id, lease.lineage, lease.attempt)
            entry = await asyncio.to_thread(spool.write, self._spool, name, self._payload)
            finished.append(Delivered(_scored(lease, entry), None))
        return late_s


class Vitals:
    """The Ray actor that stands for workers when coordinator and supervision ask."""

    async def stats(self) -> WorkerStats:
        return STATS

    async def stop(self) -> None:
        """They are stopped where they are."""


class WorkerHost:
    """The Ray actor: a process full of workers."""

    def __init__(self, spec: RunSpec, payload: bytes, seed: int) -> None:
        self._spec = spec
        self._payload = payload
        self._random = random.Random(seed)
        self._ledger = LedgerLink(spec.ledger, spec.run.deadlines.start_s)
        self._workers: list[SimulatedWorker] = []
        self._left = 0
        self._reached_s = 0.0
        gc.freeze()  # as a worker does

    async def closed(self, names: Sequence[str], slots: int, engine_s: float, quota: int = 0) -> float:
        """All workers at work until `stop`, or until they have delivered `quota` groups together, whoever is
        faster; the seconds until they had. What they had in their hands then is finished, and not counted.
        """
        self._left = quota
        began_s = time.monotonic()
        self._workers = self._new(names, engine_s, slots)
        await asyncio.gather(*(worker.serve() for worker in self._workers))
        return self._reached_s - began_s

    def _new(self, names: Sequence[str], engine_s: float, slots: int) -> list[SimulatedWorker]:
        told = self._spec, self._ledger, self._payload, engine_s, slots, self._made
        return [SimulatedWorker(name, *told) for name in names]

    def _made(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._reached_s = time.monotonic()
            self._stop()

    async def stop(self) -> None:
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.leases.stop()

    async def open(
        self, names: Sequence[str], rate_per_s: float, wait_s: float, seconds: float, engine_s: float
    ) -> list[float]:
        """Leases that fall due at `rate_per_s` for `seconds`, after `wait_s` for the workers to settle; each
        one's latency in seconds.
        """
        self._workers = self._new(names, engine_s, 1)
        versions = [
            asyncio.ensure_future(loop)
            for worker in self._workers
            for loop in (worker.versions(), worker.news.poll())
        ]
        await asyncio.sleep(wait_s)
        due_s = time.monotonic()
        until_s = time.monotonic() + seconds
        calls = list[asyncio.Task[float]]()
        finished = list[Delivered]()
        while (due_s := due_s + self._random.expovariate(rate_per_s)) < until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            calls.append(asyncio.ensure_future(self._random.choice(self._workers).one(due_s, finished)))
        latencies_s = await asyncio.gather(*calls)
        await self._ledger.report(names[0], finished)
        for version in versions:
            version.cancel()
        return latencies_s


def _scored(lease: Lease, entry: SpoolEntry) -> ScoredGroup:
    return ScoredGroup(
        lease.group_id,
        lease.attempt,
        lease.lineage,
        entry,
        version_min=lease.version,
        version_max=lease.version,
    )


def hosts(spec: RunSpec, payload: bytes, count: int) -> list[tuple[HostHandle, VitalsHandle]]:
    """Create `count` hosts, each with the actor that answers for its workers."""
    kind: Any = ray.remote(WorkerHost).options(num_cpus=0, max_concurrency=100)
    vitals: Any = ray.remote(Vitals).options(num_cpus=0, max_concurrency=100)
    return [(kind.remote(spec, payload, seed), vitals.remote()) for seed in range(count)]
