"""A run's control plane without engines: real ledger and coordinator, simulated learner and workers.

this process (the driver)   creates the actors, checks the liveness of every worker once a second
ledger, coordinator         the real ones, in processes of their own
rank                        the real one around a learner that sleeps
hosts                       two processes per core: one with workers, one that answers for them
"""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray

from dynalign.actors.coordinator.coordinator import Coordinator
from dynalign.actors.learner.learner_rank import LearnerSpec
from dynalign.actors.ledger.ledger_actor import CALLS, LedgerActor
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.remote import RayCalls
from dynalign.actors.run_spec import NAMESPACE, RunSpec
from dynalign.actors.supervision.liveness import EVERY_S, Liveness, every_s
from dynalign.benchmarks.control.learner import SimulatedRank
from dynalign.benchmarks.control.protocol import BenchmarkedCoordinator, RankHandle
from dynalign.benchmarks.control.workers import hosts
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.experience import ExperienceSettings
from dynalign.configs.sections.heldout import HeldoutSettings
from dynalign.configs.sections.metrics import MetricsSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import owner
from dynalign.run_folder.metrics import read_metrics

T = TypeVar("T")

PROMPTS_PER_STEP = 1024
GROUP_BYTES = 100_000
_DEADLINE_S = 180.0
_LOOKS_PER_S = 20
_OBJECT_STORE_BYTES = 2 * 2**30
_TITLES = {
    "ray::LedgerActor": "ledger",
    "ray::Coordinator": "coordinator",
    "ray::WorkerHost": "workers",
    "ray::Vitals": "workers",
    "ray::SimulatedRank": "learner",
}

RUN = RunSettings(
    name="control",
    model="none",
    steps=1_000_000,
    tensorboard=False,
    rollout=RolloutSettings(prompts_per_step=PROMPTS_PER_STEP),
    algorithm=AlgorithmSettings(max_staleness=1),
    heldout=HeldoutSettings(prompts=0),
    checkpoint=CheckpointSettings(every_steps=2),
    experience=ExperienceSettings(keep_steps=0),
    metrics=MetricsSettings(port=None),
    deadlines=DeadlineSettings(lease_s=600.0),
)
"""As shipped where it matters here: the deadlines give the beats, two steps of groups may be under way. A
checkpoint every second step keeps the spool small."""


class ControlPlane:
    """A running control plane. `liveness`: the supervision's check of each worker."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        lineage = owner.acquire(run_folder, time.time()).lineage
        spec = RunSpec(RUN, str(run_folder), lineage, 0, "none")
        prompts = PromptSet(tuple(Prompt(str(number), "?", "", "train") for number in range(1000)), ())
        named = {"namespace": NAMESPACE, "num_cpus": 0}
        told = LedgerSpec(RUN, spec.run_folder, lineage, 0, len(prompts.train))
        ledger: Any = ray.remote(LedgerActor).options(name=spec.ledger, max_concurrency=CALLS, **named)
        self._ledger: LedgerHandle = ledger.remote(told)
        started: Any = self._ledger.start.remote()
        ray.get(started, timeout=_DEADLINE_S)
        rank: Any = ray.remote(SimulatedRank).options(num_cpus=0)
        rank_spec = LearnerSpec(RUN, "none", spec.run_folder, lineage, 0, 1, None)
        self.rank: RankHandle = rank.remote(rank_spec)
        link = LedgerLink(spec.ledger, RUN.deadlines.start_s)
        coordinator: Any = ray.remote(Coordinator).options(name=RUN.name, **named)
        self._coordinator: BenchmarkedCoordinator = coordinator.remote(
            spec, prompts, link, [self.rank], joins=False, pristine=True
        )
        self._end = self._coordinator.train.remote()
        pairs = hosts(spec, os.urandom(GROUP_BYTES), len(os.sched_getaffinity(0)))
        self.hosts = [host for host, _ in pairs]
        self._vitals = [vitals for _, vitals in pairs]
        self._named: list[str] = []
        self.liveness: list[Liveness[Any]] = []

    async def enlist(self, workers: int) -> list[Sequence[str]]:
        """The run has that many workers now: coordinator and supervision know them.

        Each host's names; hosts without one are left out.
        """
        for name in self._named:
            await self._coordinator.remove_worker.remote(name)
        self._named = [f"worker-{number}" for number in range(workers)]
        shares = [self._named[index :: len(self.hosts)] for index in range(len(self.hosts))]
        for vitals, names in zip(self._vitals, shares, strict=True):
            for name in names:
                await self._coordinator.add_worker.remote(name, vitals)
        self.liveness = [
            Liveness(vitals.stats.remote, RayCalls())
            for vitals, names in zip(self._vitals, shares, strict=True)
            for _ in names
        ]
        return [names for names in shares if names]

    async def status(self) -> LedgerStatus:
        return await self._ledger.status.remote()

    async def steps(self, count: int) -> None:
        """Returns after that many more steps."""
        until = (await self.status()).committed_step + count
        while len(read_metrics(self._folder)) <= until:  # row 0 is that before training
            await asyncio.sleep(0.5)

    def starved_fractions(self, steps: int) -> list[float]:
        """Of each of the last steps, the share that the learner waited for a batch."""
        rows = read_metrics(self._folder)[-steps:]
        return [row["learner_wait_s"] / row["step_s"] for row in rows]

    async def watching(self, awaited: Awaitable[T], deadline_s: float = _DEADLINE_S) -> T:
        """Waits, and looks at every worker's pulse once a second meanwhile, as the driver does; one after the
        other, as the pulses of workers are that have not started in the same moment.
        """
        task = asyncio.ensure_future(awaited)
        until_s = time.monotonic() + deadline_s
        turns = itertools.cycle(range(_LOOKS_PER_S))
        while not task.done() and time.monotonic() < until_s:
            await asyncio.wait([task], timeout=EVERY_S / _LOOKS_PER_S)
            for worker in self.liveness[next(turns) :: _LOOKS_PER_S]:
                worker.look(every_s(len(self.liveness)))
        return await asyncio.wait_for(task, 0.0 if not task.done() else None)

    async def stop(self) -> None:
        await self._coordinator.control.remote("stop")
        await asyncio.wait_for(self._end, _DEADLINE_S)

    def file_bytes(self) -> int:
        """Bytes of files that workers and learner have written or read so far."""
        counters = [
            process.io_counters() for process, role in self._actors() if role in ("workers", "learner")
        ]
        return sum(each.read_chars + each.write_chars for each in counters)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds of each actor so far, of this process (`driver`), and of Ray's own processes."""
        total = dict.fromkeys((*_TITLES.values(), "ray"), 0.0)
        own = psutil.Process()
        times = own.cpu_times()
        total["driver"] = times.user + times.system
        for process, role in self._actors():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total[role] += times.user + times.system
        return total

    def _actors(self) -> Iterator[tuple[psutil.Process, str]]:
        """All processes below this one, with what they are; `ray` is everything that is no actor."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                title = (process.cmdline() or [""])[0]
                yield (
                    process,
                    next((name for beginning, name in _TITLES.items() if title.startswith(beginning)), "ray"),
                )


@contextmanager
def control_plane(run_folder: Path) -> Iterator[ControlPlane]:
    """A cluster of this process's own, whatever else runs on this machine."""
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield ControlPlane(run_folder)
    finally:
        ray.shutdown()
