"""The engines of a command that trains nothing: fake actors, no Ray."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError

from dynalign.actors.pool.pool_worker import PoolWorkerSpec
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.remote import Calls
from dynalign.configs.errors import EngineError, RunFailed
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.base import Message, Question
from dynalign.endpoint.outcome import FailedCall
from dynalign.launch.local_model import LocalModel
from dynalign.launch.local_pool import open_local_pool
from tests.worlds.supervised_run import FakeActor, FakeCall

MODEL = LocalModel(
    "--local", PoolSettings(engine="deterministic", engines=2), Path("m"), 900, "9f2c", "2026-01-31"
)
QUESTION = Question("m", (Message("user", "Who?"),))


class FakeCluster:
    """`Calls`, and what creates engines, which answer `start` so."""

    def __init__(self, start: Any = None) -> None:
        self.start = start
        self.made: dict[str, FakeActor] = {}

    def spawn(self, spec: PoolWorkerSpec, name: str) -> PoolWorkerHandle:
        self.made[name] = FakeActor(spec.name, here=("elsewhere", 1, 0.0), start=self.start, stats=None)
        return cast(PoolWorkerHandle, self.made[name])

    def wait(self, calls: Any, timeout_s: float) -> None: ...

    def ended(self, call: FakeCall) -> bool:
        return call.ended

    def answer(self, call: FakeCall) -> Any:
        if isinstance(call.outcome, BaseException):
            raise call.outcome
        return call.outcome

    def kill(self, actor: object) -> None:
        assert isinstance(actor, FakeActor)
        actor.killed = True


def nobody(name: str) -> Any:
    raise ValueError(name)


def within(cluster: FakeCluster, seconds: float = 0.0) -> FailedCall | None:
    """Opens the engines, lets one question fail after a while, closes them."""

    async def work() -> FailedCall | None:
        calls = cast(Calls, cluster)
        seconds_of = count().__next__  # a second passes with every look at it
        async with open_local_pool(MODEL, cluster.spawn, calls, nobody, seconds_of, 0.001) as sender:
            if not seconds:
                return None
            outcome = await sender.send(QUESTION, seconds)
            assert isinstance(outcome, FailedCall)
            return outcome

    return asyncio.run(asyncio.wait_for(work(), 60))


def test_all_engines_are_created_under_names_of_the_command_s_own_and_ended_with_it() -> None:
    cluster = FakeCluster()
    other = FakeCluster()
    within(cluster, 1.0)
    within(other)
    assert sorted(actor.name for actor in cluster.made.values()) == ["judge-0", "judge-1"]
    assert all(actor.killed for actor in cluster.made.values())
    assert not cluster.made.keys() & other.made.keys()  # two commands on one cluster


def test_a_model_that_does_not_load_is_one_line_with_the_cause() -> None:
    cluster = FakeCluster(start=EngineError("no such architecture"))
    with pytest.raises(RunFailed, match="--local: judge-0 ended: EngineError: no such architecture"):
        within(cluster)
    assert all(actor.killed for actor in cluster.made.values())


def test_engines_that_end_again_and_again_end_the_questions_that_wait() -> None:
    class Dying(FakeCluster):
        def spawn(self, spec: PoolWorkerSpec, name: str) -> PoolWorkerHandle:
            made = super().spawn(spec, name)
            if name.endswith("judge-1"):
                cast(FakeActor, made).methods["serve"].outcome = ActorDiedError()
            return made

    outcome = within(Dying(), 50.0)
    assert outcome is not None
    assert outcome.cause.startswith("judge-1 ended 6 times in 3600 s")
    assert outcome.again == "never"
