"""The loop, killed between any two of its lines: the real coordinator and the real ledger, in one process, without Ray."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dynalign.actors.coordinator.coordinator import Coordinator, Ending
from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import CheckpointWriteFailed, ReplacedLedger
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.configs.sections.heldout import HeldoutSettings
from dynalign.configs.sections.metrics import MetricsSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.ledger.log import committed, read
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


class Story(LedgerClient):
    """A run folder, its ledger, its learner; `calls` counts what the coordinator asks of them, and `die` happens at call `at`."""

    def __init__(self, folder: Path, at: int, die: str) -> None:
        self.place, self.at, self.die, self.calls = LedgerFolder(folder), at, die, 0
        self.trained: dict[int, tuple[int, ...]] = {}
        self.ledger: LedgerActor = cast(LedgerActor, None)
        self.disk_full = False

    def newest(self) -> int:
        newest = newest_whole(self.place.folder / "checkpoints")
        return 0 if newest is None else read_manifest(newest).step

    async def open_ledger(self) -> None:
        place = LedgerSpec(
            RUN, str(self.place.folder), self.place.owner.lineage, self.newest(), len(PROMPTS.train)
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
            (Path(arguments[0]) / "weights").write_text("whole")
            return self.trained[arguments[1]]
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
                    RUN, str(self.place.folder), self.place.owner.lineage, self.newest(), PROMPTS.content_hash
                )
                self.coordinator = Coordinator(
                    place, PROMPTS, cast(LedgerLink, self), cast(list[Any], ranks), joins, pristine=True
                )
                try:
                    return await self.coordinator.train()
                except Killed:
                    joins = (
                        self.coordinator._state != "starting"
                    )  # one that dies earlier is replaced with its learner
        finally:
            working.cancel()


class RankHandle:
    """An actor handle whose methods are plain coroutines."""

    def __init__(self, method: Callable[[str], SimpleNamespace]) -> None:
        self._method = method

    def __getattr__(self, name: str) -> SimpleNamespace:
        return self._method(name)


def told(folder: Path, at: int, die: str) -> tuple[Story, Ending]:
    async def tell() -> tuple[Story, Ending]:
        story = Story(folder, at, die)
        return story, await asyncio.wait_for(story.run(), 20)

    return asyncio.run(tell())


def check(story: Story, ending: Ending) -> None:
    commits = committed(read(story.place.folder / "ledger.log"))
    assert [commit.step for commit in commits] == [1, 2, 3, 4]
    assert {commit.step: commit.group_ids for commit in commits} == story.trained
    ids = [group_id for commit in commits for group_id in commit.group_ids]
    assert len(ids) == len(set(ids)) == 8
    ledger = ending.ledger
    assert (ending.state, ledger["pending"], ledger["leased"], ledger["scored"]) == ("finished", 0, 0, 0)
    assert ledger["issued"] == ledger["trained"] + ledger["withheld"]
    assert ledger["trained"] == 8
    assert story.newest() == 4


CALLS = 46
"""More than a run of four steps makes."""


def test_a_run_that_nobody_kills_ends_well(tmp_path: Path) -> None:
    story, ending = told(tmp_path, 0, "nobody")
    check(story, ending)
    assert 20 < story.calls < CALLS


@pytest.mark.parametrize("die", ["coordinator before", "coordinator after", "ledger before", "ledger after"])
def test_killed_at_any_call_of_the_loop_every_group_is_trained_once(tmp_path: Path, die: str) -> None:
    for at in range(1, CALLS):
        check(*told(tmp_path / str(at), at, die))


def test_a_checkpoint_that_cannot_be_written_is_tried_again_and_the_run_goes_on(tmp_path: Path) -> None:
    class OnceFull(Story):
        def learn(self, method: str, *arguments: Any) -> Any:
            self.disk_full = method == "save" and arguments[1] == 2
            return super().learn(method, *arguments)

    async def tell() -> None:
        story = OnceFull(tmp_path, 0, "nobody")
        check(story, await asyncio.wait_for(story.run(), 20))
        assert (tmp_path / "checkpoints" / "step-000003").is_dir()

    asyncio.run(tell())


def test_a_disk_that_stays_full_ends_the_run_with_the_cause_and_keeps_what_was_whole(tmp_path: Path) -> None:
    class Full(Story):
        def learn(self, method: str, *arguments: Any) -> Any:
            self.disk_full = method == "save" and arguments[1] > 2
            return super().learn(method, *arguments)

    async def tell() -> None:
        story = Full(tmp_path, 0, "nobody")
        with pytest.raises(CheckpointWriteFailed, match="No space left"):
            await asyncio.wait_for(story.run(), 20)
        assert story.newest() == 2

    asyncio.run(tell())
