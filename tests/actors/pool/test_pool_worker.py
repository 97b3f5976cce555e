"""An engine of a pool without Ray: it answers, takes questions in turn, and ends when its engine does."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign.actors.pool.pool_worker import PoolWorker, PoolWorkerSpec
from dynalign.actors.pool.protocol import EngineEnding
from dynalign.configs.errors import DeadlineExceeded, EndpointRefused, EngineError
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.base import Message, Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, EngineResult
from dynalign.rollout.engine.deterministic import DeterministicEngine
from tests.worlds.chat_models import chat_tokenizer

QUESTION = Question("judge", (Message("user", "Score it."),), max_tokens=8, seed=3)


class Breakable(DeterministicEngine):
    """Waits for `go` before each answer, and raises `raises` instead of one."""

    def __init__(self) -> None:
        super().__init__(range(97, 123), 258, "0.0")
        self.go = asyncio.Event()
        self.raises: Exception | None = None
        self.most = 0
        self._now = 0

    async def generate(self, request: EngineRequest) -> EngineResult:
        self._now += 1
        self.most = max(self.most, self._now)
        await self.go.wait()
        self._now -= 1
        if self.raises is not None:
            raise self.raises
        return await super().generate(request)


class World:
    """One engine's actor as an object."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        chat_tokenizer().save_pretrained(folder)
        pool = PoolSettings(engine="deterministic", **settings)
        spec = PoolWorkerSpec("judge-0", "q", "info", pool, str(folder), 200, "2026-01-31", 0, None)
        self.engine = Breakable()
        self.worker = PoolWorker(spec, self._start)

    async def _start(self, spec: PoolWorkerSpec, contexts: Contexts) -> Engine:
        return self.engine


def within(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


def test_a_question_that_comes_before_the_model_is_loaded_is_answered_after_it(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        world.engine.go.set()
        asking = asyncio.create_task(world.worker.ask(QUESTION))
        serving = asyncio.create_task(world.worker.started())
        await asyncio.sleep(0.01)
        assert not serving.done()
        await world.worker.start()
        answers = await asking
        assert (len(answers.answers_N), answers.model) == (1, tmp_path.name)
        stats = await world.worker.stats()
        assert (stats.questions_in_flight, stats.questions_total) == (0, 1)
        assert stats.completion_tokens_total == answers.completion_tokens > 0
        await world.worker.stop()
        await world.worker.serve()

    within(work)


def test_no_more_questions_are_in_the_engine_than_it_has_sequences(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path, max_sequences=2)
        await world.worker.start()
        asking = [asyncio.create_task(world.worker.ask(QUESTION)) for _ in range(6)]
        await asyncio.sleep(0.01)
        assert (await world.worker.stats()).questions_in_flight == 6
        world.engine.go.set()
        await asyncio.gather(*asking)
        assert world.engine.most == 2

    within(work)


def test_an_engine_that_fails_ends_its_actor_which_takes_no_question_any_more(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        await world.worker.start()
        world.engine.go.set()
        world.engine.raises = EngineError("EngineCore died")
        with pytest.raises(EngineError, match="EngineCore died"):
            await world.worker.ask(QUESTION)
        with pytest.raises(EngineError, match="judge-0 is ending"):
            await world.worker.started()
        with pytest.raises(EngineError, match="EngineCore died"):
            await world.worker.serve()

    within(work)


def test_an_engine_that_does_not_answer_in_time_counts_as_hanging_and_waiting_for_a_turn_does_not_count(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path, answer_s=0.5, max_sequences=1)
        await world.worker.start()
        asking = [asyncio.create_task(world.worker.ask(QUESTION)) for _ in range(2)]
        with pytest.raises(DeadlineExceeded, match="waited 0.5 s for an answer in judge-0: its engine hangs"):
            await asking[0]
        with pytest.raises(EngineEnding, match="judge-0 is ending"):
            await asking[1]  # it is asked elsewhere, and under no suspicion
        with pytest.raises(DeadlineExceeded, match="its engine hangs"):
            await world.worker.serve()

    within(work)


def test_a_question_that_is_too_long_is_refused_and_the_engine_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        await world.worker.start()
        world.engine.go.set()
        with pytest.raises(EndpointRefused, match="the engine holds 200"):
            await world.worker.ask(Question("judge", (Message("user", "x" * 300),)))
        await world.worker.ask(QUESTION)

    within(work)
