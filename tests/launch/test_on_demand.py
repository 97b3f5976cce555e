"""What is opened when it is first needed: once, for everybody, and closed with its command."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dynalign.configs.errors import RunFailed
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.endpoint.outcome import FailedCall
from dynalign.launch.on_demand import OnDemand, SenderOnDemand

QUESTION = Question("m", (Message("user", "Who?"),))


class Opened:
    """A context; `tasks` are those that entered and left it, one after another."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.tasks: list[asyncio.Task[Any] | None] = []

    @asynccontextmanager
    async def context(self) -> AsyncIterator[str]:
        self.tasks.append(asyncio.current_task())
        try:
            await self.may_open.wait()
            if self.fails:
                raise RunFailed("no engine starts")
            yield "value"
        finally:
            self.tasks.append(asyncio.current_task())


def within(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def test_what_nobody_needs_is_never_opened() -> None:
    async def story() -> None:
        opened = Opened()
        demand = OnDemand(opened.context)
        await demand.close()
        assert opened.tasks == []

    within(story())


def test_all_who_need_it_share_one_and_the_task_that_opened_it_closes_it() -> None:
    async def story() -> None:
        opened = Opened()
        demand = OnDemand(opened.context)
        values = await asyncio.gather(*(demand.get() for _ in range(3)))
        assert values == ["value"] * 3
        assert len(opened.tasks) == 1
        await demand.close()
        first, last = opened.tasks
        assert first is last is not asyncio.current_task()

    within(story())


def test_why_it_cannot_be_opened_is_told_to_all_who_need_it_and_it_is_tried_once() -> None:
    async def story() -> None:
        opened = Opened(fails=True)
        demand = OnDemand(opened.context)
        told = await asyncio.gather(*(demand.get() for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in told] == ["no engine starts"] * 3
        with pytest.raises(RunFailed):
            await demand.get()
        await demand.close()
        assert len(opened.tasks) == 2

    within(story())


def test_a_command_that_ends_while_it_is_being_opened_closes_what_is_there() -> None:
    async def story() -> None:
        opened = Opened()
        opened.may_open.clear()
        demand = OnDemand(opened.context)
        waiting = asyncio.create_task(demand.get())
        while not opened.tasks:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await demand.close()
        assert len(opened.tasks) == 2

    within(story())


def test_whoever_no_longer_waits_does_not_stop_the_opening_for_the_others() -> None:
    async def story() -> None:
        opened = Opened()
        opened.may_open.clear()
        demand = OnDemand(opened.context)
        impatient = asyncio.create_task(demand.get())
        patient = asyncio.create_task(demand.get())
        while not opened.tasks:
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        opened.may_open.set()
        assert await patient == "value"
        await demand.close()

    within(story())


def test_opening_takes_nothing_from_the_time_of_the_question() -> None:
    answers = Answers((Answer("Nobody.", "stop"),), "m", 3, 2)

    class Timed:
        async def send(self, question: Question, timeout_s: float) -> Answers | FailedCall:
            assert (question, timeout_s) == (QUESTION, 0.5)
            return answers

    @asynccontextmanager
    async def slow() -> AsyncIterator[Timed]:
        await asyncio.sleep(0)
        yield Timed()

    async def story() -> None:
        demand = OnDemand(slow)
        assert await SenderOnDemand(demand).send(QUESTION, 0.5) == answers
        await demand.close()

    within(story())
