"""Whom offline commands ask: an endpoint on a scripted server, a local model on fake engines, one journal."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dynalign.actors.pool.pool_sender import PoolSender
from dynalign.configs.errors import EndpointRefused, EndpointUnreachable, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.base import Message, Question
from dynalign.launch.local_model import LocalModel
from dynalign.launch.offline_askers import OpenAskers, open_askers
from tests.worlds.asked_endpoint import question, settings
from tests.worlds.scripted_askers import ScriptedAsker
from tests.worlds.scripted_endpoint import scripted_endpoint
from tests.worlds.tiny_models import tiny_llama


class Local:
    """Engines that say their question back, and count."""

    def __init__(self) -> None:
        self.asker = ScriptedAsker(lambda question: question.messages[-1].content)
        self.given_up: asyncio.Future[str] | None = None
        self.started: list[str] = []

    @asynccontextmanager
    async def pool(self, model: LocalModel) -> AsyncIterator[PoolSender]:
        self.started.append("engines")
        self.given_up = asyncio.get_running_loop().create_future()
        yield PoolSender(self.asker, self.given_up)

    @asynccontextmanager
    async def ray(self, models: Collection[LocalModel]) -> AsyncIterator[None]:
        self.started.append("ray")
        yield

    @asynccontextmanager
    async def asked(
        self, folder: Path, endpoints: dict[str, EndpointSettings] | None = None
    ) -> AsyncIterator[OpenAskers]:
        small = PoolSettings(model=str(folder / "model"), engine="deterministic")
        async with open_askers(
            endpoints or {},
            folder / "answers.sqlite",
            "prompts",
            local={"small": small},
            open_pool=self.pool,
            open_ray=self.ray,
        ) as opened:
            yield opened


def asked_of(opened: OpenAskers, name: str, text: str) -> Question:
    return Question(opened.askers[name].model, (Message("user", text),))


def test_endpoint_and_local_model_share_a_journal_that_a_second_run_reads(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    local = Local()

    async def run(address: str) -> tuple[str, str, str]:
        big = settings(address, input_price=1e6)
        async with local.asked(tmp_path, {"big": big}) as opened:
            assert set(opened.askers) == {"big", "small"}
            of_big = await opened.askers["big"].asker.ask(question(1))
            of_small = await opened.askers["small"].asker.ask(asked_of(opened, "small", "Who?"))
            assert opened.askers["big"].input_price == 1e6
            assert opened.askers["small"].input_price is None
            return of_big.answers_N[0].text, of_small.answers_N[0].text, opened.line()

    with scripted_endpoint() as server:
        first = asyncio.run(run(server.address))
        billed = sum(body["messages"][-1]["content"] == "question 1" for body in server.billed)
        again = asyncio.run(run(server.address))
        assert billed == sum(body["messages"][-1]["content"] == "question 1" for body in server.billed) == 1
    assert first[:2] == again[:2]
    assert first[1] == "Who?"
    assert len(local.asker.questions) == 1
    assert local.started == ["ray", "engines"], "the second run has its answers from the journal"
    assert "small: 1 answered, 1 from the journal" in again[2]
    assert "big: 1 answered, 0 from the journal" in first[2]
    with sqlite3.connect(tmp_path / "answers.sqlite") as db:
        assert db.execute("SELECT DISTINCT purpose FROM answers").fetchall() == [("prompts",)]


def test_another_model_under_the_same_path_is_asked_anew(tmp_path: Path) -> None:
    local = Local()

    async def run() -> None:
        async with local.asked(tmp_path) as opened:
            await opened.askers["small"].asker.ask(asked_of(opened, "small", "Who?"))

    for hidden in (32, 64):
        tiny_llama(tmp_path / "model", hidden=hidden)
        asyncio.run(run())
    assert len(local.asker.questions) == 2


def test_engines_start_with_the_first_question_that_the_journal_does_not_answer(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    local = Local()

    async def run(*texts: str) -> list[str]:
        local.started.clear()
        async with local.asked(tmp_path) as opened:
            asker = opened.askers["small"].asker
            assert local.started == []
            await asyncio.gather(*(asker.ask(asked_of(opened, "small", text)) for text in texts))
        return local.started

    assert asyncio.run(run()) == []
    assert asyncio.run(run("Who?", "Why?")) == ["ray", "engines"]
    assert asyncio.run(run("Why?", "Who?")) == []
    assert asyncio.run(run("Why?", "When?")) == ["ray", "engines"]


def test_every_mistake_is_reported_together_and_no_engine_is_started(tmp_path: Path) -> None:
    async def run() -> None:
        away = settings("http://127.0.0.1:9/v1", key_variable="NOT_THERE")
        odd = settings("ftp://judge")
        local = {"lost": PoolSettings(model=str(tmp_path / "gone")), "none": PoolSettings()}
        async with open_askers({"away": away, "odd": odd}, tmp_path / "a.sqlite", "prompts", local=local):
            raise AssertionError("nothing may be opened")

    with pytest.raises(UserError) as refused:
        asyncio.run(run())
    places = [mistake.place for mistake in refused.value.mistakes]
    assert places == ["endpoints.away.key_variable", "endpoints.odd.address", "lost", "none"]
    assert not (tmp_path / "a.sqlite").exists()


def test_a_pool_that_has_given_up_ends_the_questions_that_wait(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    local = Local()

    class Silent:
        async def ask(self, question: Question) -> None:
            await asyncio.Event().wait()

    async def run() -> None:
        async with local.asked(tmp_path) as opened:
            local.asker.ask = Silent().ask  # type: ignore[method-assign, assignment]
            asking = asyncio.create_task(opened.askers["small"].asker.ask(asked_of(opened, "small", "Who?")))
            async with asyncio.timeout(60):
                while local.given_up is None:  # the engines start with the question
                    await asyncio.sleep(0.01)
            local.given_up.set_result("judge-0 ended 6 times")
            with pytest.raises(EndpointRefused, match="judge-0 ended 6 times"):
                await asyncio.wait_for(asking, 60)

    asyncio.run(run())


def test_a_pool_that_is_not_reached_is_asked_once(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    local = Local()
    local.asker.says = lambda question: EndpointUnreachable("judge.pool", "3 engines ended")

    async def run() -> None:
        async with local.asked(tmp_path) as opened:
            with pytest.raises(EndpointUnreachable, match="3 engines ended"):
                await opened.askers["small"].asker.ask(asked_of(opened, "small", "Who?"))

    asyncio.run(run())
    assert len(local.asker.questions) == 1


def test_the_live_line_is_said_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "model")
    local = Local()
    said: list[str] = []

    async def run() -> None:
        async with local.asked(tmp_path) as opened, opened.live(2, said.append, every_s=0.01):
            await opened.askers["small"].asker.ask(asked_of(opened, "small", "Who?"))
            await asyncio.sleep(0.05)

    asyncio.run(run())
    assert len(said) > 1
    assert said[-1].startswith("1 of 2 answered")
