"""The pool as whoever asks sees it: engines that serve, die, hang, come back, or break over a question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dynalign.actors.pool.pool import Pool
from dynalign.actors.pool.protocol import NotAlone
from dynalign.actors.pool.room import Room
from dynalign.configs.errors import EndpointRefused, EndpointUnreachable, EngineError, LedgerError
from dynalign.endpoint.base import Answer, Answers, Message, Question
from tests.worlds.named_actors import FakeActorOfName, NamedActors

QUESTION = Question("judge", (Message("user", "Score it."),))


class FakeEngine(FakeActorOfName):
    """Answers with its name; `held` keeps its answers back, and `raises` is raised instead of one."""

    def __init__(self, name: str, raises: Exception | None = None) -> None:
        super().__init__()
        self.name = name
        self.asked = 0
        self.held = asyncio.Event()
        self.held.set()
        self.raises = raises
        self.ends = False
        self.room = Room(64)
        self.alone = 0

    async def started(self) -> None:
        if self.ends and self.asked:
            raise EngineError(f"{self.name} is ending")

    async def ask(self, question: Question) -> Answers:
        self.asked += 1
        await self.held.wait()
        if self.raises is not None:
            raise self.raises
        return Answers((Answer("5", "stop"),), self.name, 3, 1)

    async def reserve(self, ticket: str) -> None:
        await self.room.reserve(ticket)

    async def ask_alone(self, ticket: str, question: Question) -> Answers:
        async with self.room.alone(ticket) as is_alone:
            if not is_alone:
                raise NotAlone(self.name)
            self.alone += 1
            return await self.ask(question)


class World:
    """A pool of two places, of which a test fills some with engines."""

    def __init__(self, deadline_s: float = 20.0) -> None:
        self.actors = NamedActors()
        self.pool = Pool("judge.pool", ["e-0", "e-1"], deadline_s, 3, self.actors.find)

    def engine(self, name: str, raises: Exception | None = None) -> FakeEngine:
        made = FakeEngine(name, raises)
        self.actors.by_name[name] = made
        return made

    async def ask(self) -> str:
        return (await self.pool.ask(QUESTION)).model


def within(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(bounded())


def test_questions_are_spread_over_the_engines_by_what_each_has_to_do() -> None:
    async def work() -> None:
        world = World()
        first = world.engine("e-0")
        second = world.engine("e-1")
        await world.ask()
        await asyncio.sleep(0.05)  # both are known now
        for engine in (first, second):
            engine.held.clear()
            engine.asked = 0
        asking = [asyncio.create_task(world.ask()) for _ in range(10)]
        while first.asked + second.asked < 10:
            await asyncio.sleep(0)
        assert first.asked == second.asked
        first.held.set()
        second.held.set()
        assert set(await asyncio.gather(*asking)) == {"e-0", "e-1"}

    within(work)


def test_what_an_engine_had_when_it_died_is_asked_elsewhere_and_its_replacement_is_found_by_name() -> None:
    async def work() -> None:
        world = World()
        first = world.engine("e-0")
        first.held.clear()
        asking = [asyncio.create_task(world.ask()) for _ in range(3)]
        while first.asked < 3:
            await asyncio.sleep(0)
        world.actors.kill("e-0")
        world.engine("e-1")
        assert await asyncio.gather(*asking) == ["e-1"] * 3
        world.actors.kill("e-1")
        replacement = asyncio.create_task(world.ask())
        await asyncio.sleep(0)
        world.engine("e-0")
        assert await replacement == "e-0"

    within(work)


def test_nothing_is_reachable_when_no_engine_is_there_until_the_deadline() -> None:
    async def work() -> None:
        with pytest.raises(EndpointUnreachable, match="none of its 2 engines has answered within 0.3 s"):
            await World(deadline_s=0.3).ask()

    within(work)


def test_an_engine_that_hangs_is_waited_for_until_the_deadline_and_no_longer() -> None:
    async def work() -> None:
        world = World(deadline_s=0.3)
        world.engine("e-0").held.clear()
        with pytest.raises(EndpointUnreachable, match="within 0.3 s"):
            await world.ask()

    within(work)


def test_a_question_that_breaks_every_engine_it_meets_breaks_three_in_which_it_is_alone() -> None:
    async def work() -> None:
        world = World()
        broken = EngineError("EngineCore died")
        engines = [world.engine(name, broken) for name in ("e-0", "e-1")]
        with pytest.raises(
            EndpointUnreachable, match="3 engines ended while they had this .* alone.*EngineCore died"
        ):
            await world.ask()
        assert sum(engine.asked for engine in engines) == 4
        assert sum(engine.alone for engine in engines) == 3

    within(work)


def test_what_an_engine_refuses_is_the_callers_and_is_asked_nowhere_else() -> None:
    async def work() -> None:
        world = World()
        engines = [world.engine(name, EndpointRefused("tiny", "too long")) for name in ("e-0", "e-1")]
        with pytest.raises(EndpointRefused, match="tiny: too long"):
            await world.ask()
        assert sum(engine.asked for engine in engines) == 1

    within(work)


def test_an_engine_that_is_ending_is_not_asked_again() -> None:
    async def work() -> None:
        world = World()
        first = world.engine("e-0", EngineError("it fails"))
        first.ends = True
        asking = asyncio.create_task(world.ask())
        while not first.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        world.engine("e-1")
        assert await asking == "e-1"
        assert first.asked == 1

    within(work)


def test_questions_beside_one_that_breaks_engines_are_all_answered() -> None:
    bad = Question("judge", (Message("user", "It breaks engines."),))

    class Picky(FakeEngine):
        async def ask(self, question: Question) -> Answers:
            if question == bad:
                self.dead.set()
                await asyncio.Event().wait()
            return await super().ask(question)

    async def work() -> None:
        world = World()
        world.actors.by_name["e-0"] = Picky("e-0")
        good = [asyncio.create_task(world.ask()) for _ in range(20)]
        breaking = asyncio.create_task(world.pool.ask(bad))
        while not breaking.done():
            if world.actors.by_name["e-0"].dead.is_set():
                world.actors.by_name["e-0"] = Picky("e-0")
            await asyncio.sleep(0.01)
        with pytest.raises(EndpointUnreachable, match="3 engines ended while they had this question alone"):
            await breaking
        assert await asyncio.gather(*good) == ["e-0"] * 20

    within(work)


def test_an_error_that_no_asker_raises_is_a_refusal_and_ends_no_worker() -> None:
    async def work() -> None:
        world = World()
        world.engine("e-0", LedgerError("what is this doing here?"))
        with pytest.raises(EndpointRefused, match="e-0: LedgerError: what is this"):
            await world.ask()

    within(work)
