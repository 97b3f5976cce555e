"""The real coordinator and ledger in one process, without Ray, over a learner that only remembers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from dynalign.actors.coordinator.coordinator import Coordinator, Ending
from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import ReplacedLedger
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.configs.sections.heldout import HeldoutSettings
from dynalign.configs.sections.metrics import MetricsSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder.checkpoint import newest_whole, read_manifest
from tests.worlds.ledger_actor_world import LedgerFolder, leases_of, report

RUN = RunSettings(
    name="small",
    model="none",
    steps=4,
    tensorboard=False,
    rollout=RolloutSettings(prompts_per_step=2),
    algorithm=AlgorithmSettings(max_staleness=1, max_refill=0.0),
    heldout=HeldoutSettings(prompts=0),
    checkpoint=CheckpointSettings(every_steps=2, failures=1),
    metrics=MetricsSettings(port=None),
)
PROMPTS = PromptSet(
    (Prompt("a", "?", "d", "train"), Prompt("b", "?", "d", "train"), Prompt("c", "?", "d", "train")), ()
)


class Killed(Exception):
    """What a call raises in the place of a process's death."""


class CoordinatedRun(LedgerClient):
    """A run folder, its ledger and its learner.

    `calls` counts the coordinator's calls to them. At call `at`, what `die` names happens: nothing, or the
    death of ledger or coordinator before or after the call. `stop_when_replaced`: whether a coordinator that
    takes another one's place is asked to stop before its loop begins.
    """

    def __init__(self, folder: Path, at: int, die: str, settings: RunSettings = RUN) -> None:
        self.settings = settings
        self.place = LedgerFolder(folder)
        self.at = at
        self.die = die
        self.calls = 0
        self.trained: dict[int, tuple[int, ...]] = {}
        self.ledger: LedgerActor = cast(LedgerActor, None)
        self.disk_full = False
        self.stop_when_replaced = False

    def newest(self) -> int:
        newest = newest_whole(self.place.folder / "checkpoints")
        return 0 if newest is None else read_manifest(newest).step

    async def open_ledger(self) -> None:
        place = LedgerSpec(
            self.settings, str(self.place.folder), self.place.owner.lineage, self.newest(), len(PROMPTS.train)
        )
        opened = LedgerActor(place, self.place.clock)
        await opened.start()
        self.ledger = opened

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        """As LedgerLink: a ledger that dies before or after it has acted is replaced, and asked again."""
        self.calls += 1
        here = self.calls == self.at
        if here and self.die == "coordinator before":
            raise Killed
        if here and self.die == "ledger before":
            await self.replace_ledger()
        answer = await getattr(self.ledger, method)(*arguments)
        if here and self.die == "ledger after":
            await self.replace_ledger()
            answer = await getattr(self.ledger, method)(*arguments)
        if here and self.die == "coordinator after":
            raise Killed
        return answer

    async def replace_ledger(self) -> None:
        await self.open_ledger()
        await self.coordinator.ledger_replaced()

    def learner(self, method: str) -> SimpleNamespace:
        async def answer(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.at and self.die == "coordinator before":
                raise Killed
            done = self.learn(method, *arguments)
            if self.calls == self.at and self.die == "coordinator after":
                raise Killed
            return done

        return SimpleNamespace(remote=lambda *arguments: answer(*arguments))

    def learn(self, method: str, *arguments: Any) -> Any:
        if method == "prepare":
            self.prepared = (arguments[0], tuple(group.group_id for group in arguments[1]))
        elif method == "run":
            self.trained.setdefault(*self.prepared)
            return {"learn_s": 0.1}, self.trained[arguments[0]]
        elif method == "publish":
            step = arguments[0]
            return (
                (WeightVersion(1, step, b"", (), 0), 0.0)
                if step == len(self.trained) or step in self.trained
                else None
            )
        elif method == "save":
            if self.disk_full:
                raise OSError(28, "No space left on device")
            (Path(arguments[0]) / "weights").write_text(str(len(self.trained)))
            return self.trained[arguments[1]]
        elif method in ("load", "trained_step"):
            return len(self.trained)
        elif method == "rendezvous":
            return ("here", 1)
        return None

    async def work(self) -> None:
        """A worker that takes whatever there is, until the end."""
        while True:
            with suppress(ReplacedLedger):  # as LedgerLink: its successor is asked
                for lease in await leases_of(self.ledger, 2):
                    await report(self.ledger, self.place.scored(lease))
            await asyncio.sleep(0)

    async def run(self) -> Ending:
        await self.open_ledger()
        working = asyncio.create_task(self.work())
        ranks = [RankHandle(self.learner)]
        try:
            joins = False
            while True:
                place = RunSpec(
                    self.settings,
                    str(self.place.folder),
                    self.place.owner.lineage,
                    self.newest(),
                    PROMPTS.content_hash,
                )
                self.coordinator = Coordinator(
                    place, PROMPTS, cast(LedgerLink, self), cast(list[Any], ranks), joins, pristine=True
                )
                try:
                    if joins and self.stop_when_replaced:
                        await self.coordinator.control("stop")
                    return await self.coordinator.train()
                except Killed:
                    # One that dies before it runs is replaced together with its learner.
                    joins = self.coordinator._now.state != "starting"
        finally:
            working.cancel()


class RankHandle:
    """An actor handle whose methods are plain coroutines."""

    def __init__(self, method: Callable[[str], SimpleNamespace]) -> None:
        self._method = method

    def __getattr__(self, name: str) -> SimpleNamespace:
        return self._method(name)
