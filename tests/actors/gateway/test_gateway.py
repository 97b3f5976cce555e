"""The gateway and the way to it: one account for all, errors unwrapped, a replacement that nobody notices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ray.exceptions import OutOfDiskError

from dynalign.actors.gateway.gateway import Gateway, GatewaySpec
from dynalign.actors.gateway.gateway_link import GatewayLink
from dynalign.actors.gateway.protocol import OpenEndpoint
from dynalign.configs.errors import (
    BudgetReached,
    EndpointRefused,
    EndpointUnreachable,
    EngineError,
    JournalError,
)
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.run_folder import layout
from tests.worlds.named_actors import NamedActors

QUESTION = Question("judge", (Message("user", "Score it."),))


class FakeSpent:
    """An amount."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.cost = tokens / 1000


class FakeEndpoint:
    """Answers for ten tokens each, up to `budget`; `journal` outlives it."""

    def __init__(self, journal: dict[Question, Answers], budget: int = 1000) -> None:
        self.journal = journal
        self.budget = budget
        self.tokens = 10 * len(journal)
        self.raises: Exception | None = None

    async def ask(self, question: Question) -> Answers:
        if self.raises is not None:
            raise self.raises
        if question not in self.journal:
            if self.tokens + 10 > self.budget:
                raise BudgetReached("http://judge", "the budget is reached")
            self.tokens += 10
            self.journal[question] = Answers((Answer("5", "stop"),), "gpt", 8, 2)
        return self.journal[question]

    async def spent(self) -> FakeSpent:
        return FakeSpent(self.tokens)


class Served(Gateway):
    """A gateway that can die, as `NamedActors` wants it."""

    def __init__(
        self, folder: Path, endpoint: FakeEndpoint, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.dead = asyncio.Event()
        self.paths: list[Path] = []

        @asynccontextmanager
        async def opening(path: Path) -> AsyncIterator[Mapping[str, OpenEndpoint]]:
            self.paths.append(path)
            yield {"gpt": endpoint}

        super().__init__(GatewaySpec("q", "info", str(folder)), opening, clock)


def within(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def test_the_journal_is_in_the_run_folder_and_the_account_shows_tokens_money_and_their_rate(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        now_s = 0.0
        gateway = Served(tmp_path, FakeEndpoint({}, budget=30), lambda: now_s)
        await gateway.start()
        assert gateway.paths == [tmp_path / layout.ANSWERS]
        assert (await gateway.stats())[0].tokens_per_s == 0.0
        for seed in range(2):
            await gateway.ask("gpt", Question("judge", QUESTION.messages, seed=seed))
        now_s = 10.0
        (stats,) = await gateway.stats()
        assert (stats.tokens_total, stats.cost_total, stats.tokens_per_s) == (20, 0.02, 2.0)
        now_s = 100.0
        assert (await gateway.stats())[0].tokens_per_s == 0.0  # over the last minute
        await gateway.ask("gpt", QUESTION)
        with pytest.raises(BudgetReached):
            await gateway.ask("gpt", Question("judge", QUESTION.messages, seed=9))
        (stats,) = await gateway.stats()
        assert (stats.questions_total, stats.failures_total, stats.questions_in_flight) == (4, 1, 0)
        assert (stats.name, stats.budget_reached) == ("gpt", "the budget is reached")

    within(work)


def test_a_question_that_was_under_way_when_the_gateway_died_is_answered_by_its_successor(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        actors = NamedActors()
        link = GatewayLink("q-gateway", "gpt", 10.0, 10.0, actors.find)
        journal: dict[Question, Answers] = {}
        asking = asyncio.create_task(link.ask(QUESTION))
        await asyncio.sleep(0.05)
        assert not asking.done()  # there is none yet
        first = Served(tmp_path, FakeEndpoint(journal))
        actors.by_name["q-gateway"] = first
        await asyncio.sleep(0.05)
        assert not asking.done()  # it has not opened its journal yet
        await first.start()
        assert (await asking).model == "gpt"
        actors.kill("q-gateway")
        again = asyncio.create_task(link.ask(QUESTION))
        await asyncio.sleep(0.05)
        second = Served(tmp_path, FakeEndpoint(journal))
        await second.start()
        actors.by_name["q-gateway"] = second
        assert await again == journal[QUESTION]
        assert (await second.stats())[0].tokens_total == 10  # it was paid for once

    within(work)


def test_what_the_gateway_raises_is_the_callers_and_without_a_gateway_nothing_is_reachable(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        actors = NamedActors()
        link = GatewayLink("q-gateway", "gpt", 0.3, 10.0, actors.find, hold_s=0.2)
        with pytest.raises(EndpointUnreachable, match="gpt: waited 0.3 s for a gateway named q-gateway"):
            await link.ask(QUESTION)
        gateway = Served(tmp_path, FakeEndpoint({}, budget=5))
        await gateway.start()
        actors.by_name["q-gateway"] = gateway
        asking = asyncio.create_task(link.ask(QUESTION))
        await asyncio.sleep(0.05)
        assert not asking.done()  # it is held until the run stops
        with pytest.raises(BudgetReached, match="the budget is reached"):
            await asking

    within(work)


def test_whatever_goes_wrong_behind_the_gateway_is_an_endpoint_error_to_the_worker(tmp_path: Path) -> None:
    endpoint = FakeEndpoint({})

    async def work() -> None:
        actors = NamedActors()
        gateway = Served(tmp_path, endpoint)
        await gateway.start()
        actors.by_name["q-gateway"] = gateway
        for error, kind, said in (
            (
                JournalError("answers.sqlite", "SQLite says: disk is full"),
                JournalError,
                "answers.sqlite: SQL",
            ),
            (EngineError("no engine"), EndpointUnreachable, "gpt: EngineError: no engine"),
            (OutOfDiskError("spilling"), EndpointUnreachable, "gpt: OutOfDiskError"),
        ):
            endpoint.raises = error
            with pytest.raises(kind, match=said):
                await GatewayLink("q-gateway", "gpt", 0.3, 10.0, actors.find).ask(QUESTION)
        with pytest.raises(EndpointRefused, match="knows no such endpoint"):
            await GatewayLink("q-gateway", "gtp", 0.3, 10.0, actors.find).ask(QUESTION)

    within(work)
