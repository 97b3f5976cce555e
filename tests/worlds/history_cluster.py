"""The actors of one driver in a random history: the product's supervision, ledger and coordinator, and the
lease loops of its workers."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

from dynalign.actors.coordinator.coordinator import Coordinator
from dynalign.actors.coordinator.protocol import CoordinatorHandle, Ending
from dynalign.actors.gateway.protocol import GatewayHandle
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.supervisor import Supervisor
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.schema import RunSettings
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder import checkpoint, layout, owner
from tests.worlds.history_actors import HistoryItems, HistoryLearner, HistoryWorker
from tests.worlds.history_network import ActorHandle, Network
from tests.worlds.virtual_time import Process

BEAT_S = 3.0
LOOK_S = 0.5


class Watch(Protocol):
    """What the history wants to know of its ledgers, and what it says of the others."""

    def opened(self, ledger: LedgerActor, spec: LedgerSpec) -> None: ...
    def fsync(self, descriptor: int) -> None: ...
    def breaks(self, process: Process, prompt_index: int) -> bool: ...
    def fails(self, what: str) -> bool: ...


class WatchedLedger(LedgerActor):
    """The product's, with a look at it when it has opened."""

    def __init__(self, spec: LedgerSpec, watch: Watch) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(spec, loop.time, watch.fsync, compact_bytes=2000)
        self._watch = watch

    async def start(self) -> None:
        await super().start()
        self._watch.opened(self, self._spec)


class Cluster:
    """A `Spawner`, and the driver that uses it. `driver` is the driver's process, `ending` how its run
    ended."""

    def __init__(
        self, number: int, run: RunSettings, prompts: PromptSet, folder: Path, random: Random, watch: Watch
    ) -> None:
        self.run = run
        self.prompts = prompts
        self.folder = folder
        self.ending: Ending | None = None
        self.error: BaseException | None = None
        self.supervisor: Supervisor | None = None
        self.driver = Process(f"driver-{number}", "driver")
        self.handles: list[ActorHandle] = []
        self._number = number
        self._random = random
        self._watch = watch
        self._network = Network(random)
        self._ledger: ActorHandle | None = None

    # ---- as a driver

    async def drive(self, mine: owner.Owner) -> None:
        """Until the run has ended, in the driver's process."""
        loop = asyncio.get_running_loop()
        spec = RunSpec(self.run, str(self.folder), mine.lineage, self.newest(), self.prompts.content_hash)
        self.supervisor = Supervisor(
            spec, self, partial(self._rollback, mine), self.newest, _ignore, self._network, loop.time
        )
        beat_s = loop.time()
        while self.supervisor.ending is None:
            if loop.time() - beat_s >= BEAT_S:
                mine.beat(loop.time())
                beat_s = loop.time()
            self.supervisor.look(0.0)
            await asyncio.sleep(LOOK_S)
        self.supervisor.end()
        mine.release(loop.time())
        self.ending = self.supervisor.ending

    def newest(self) -> int:
        """Step of the newest whole checkpoint, which must be what its manifest says."""
        folder = checkpoint.newest_whole(self.folder / layout.CHECKPOINTS)
        return 0 if folder is None else checkpoint.verify(folder).step

    def _rollback(self, mine: owner.Owner) -> tuple[int, int]:
        return mine.new_lineage(asyncio.get_running_loop().time()), self.newest()

    def serves(self, process: Process) -> bool:
        """Whether it is the newest ledger."""
        return self._ledger is not None and self._ledger.process is process

    def processes(self) -> list[Process]:
        return [self.driver, *(handle.process for handle in self.handles)]

    def die(self) -> None:
        """The driver's death ends its actors, which Ray does not detach."""
        for process in self.processes():
            if not process.dead:
                process.die()

    # ---- as a `Spawner`, of runs that ask nobody but their own engines

    asks_endpoint = False

    def engine(self, spec: RunSpec, seat: str, name: str) -> PoolWorkerHandle:
        raise AssertionError(f"{name} is an engine of a pool")

    def gateway(self, spec: RunSpec) -> GatewayHandle:
        raise AssertionError("a gateway to an endpoint")

    def ledger(self, spec: RunSpec) -> LedgerHandle:
        place = LedgerSpec(spec.run, spec.run_folder, spec.lineage, spec.step, len(self.prompts.train))
        self._ledger = self._actor("ledger", "ledger", lambda: WatchedLedger(place, self._watch))
        return cast(LedgerHandle, self._ledger)

    def ranks(self, spec: RunSpec) -> tuple[LearnerRankActor, ...]:
        rank = self._actor(
            "learner", "learner", lambda: HistoryLearner(spec, self._random, self._watch.fails)
        )
        return (cast(LearnerRankActor, rank),)

    def coordinator(
        self, spec: RunSpec, ranks: tuple[LearnerRankActor, ...], joins: bool, pristine: bool
    ) -> CoordinatorHandle:
        def create() -> Coordinator:
            items = self.run.capability.items
            probe = HistoryItems(items) if items else None
            link = self._link(spec.lineage)
            return Coordinator(spec, self.prompts, link, list(ranks), joins, pristine, probe)

        return cast(CoordinatorHandle, self._actor("coordinator", "coordinator", create))

    def worker(self, spec: RunSpec, seat: str, name: str) -> RolloutWorkerHandle:
        process: list[Process] = []

        def create() -> HistoryWorker:
            return HistoryWorker(
                name, spec, self._link(), self._random, lambda prompt: self._watch.breaks(process[0], prompt)
            )

        handle = self._actor(name, "worker", create)
        process.append(handle.process)
        return cast(RolloutWorkerHandle, handle)

    def _actor(self, name: str, kind: str, create: Callable[[], Any]) -> ActorHandle:
        process = Process(f"{name} of {self._number}", kind)
        handle = ActorHandle(self._network, process, create)
        self.handles.append(handle)
        return handle

    def _link(self, lineage: int | None = None) -> LedgerLink:
        clock = asyncio.get_running_loop().time
        return LedgerLink("ledger", self.run.deadlines.start_s, lineage, self._find, clock)

    def _find(self, name: str) -> ActorHandle:
        if self._ledger is None or self._ledger.process.dead:
            raise ValueError(f"there is no actor named {name}")
        return self._ledger


def _ignore(_: object) -> None:
    """What is withheld as poison."""
