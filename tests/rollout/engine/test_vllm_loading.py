"""Loading a version into vLLM, on a vLLM that is a script: what a cancellation leaves behind."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("vllm")

from dynalign.configs.errors import EngineError
from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.engine.vllm import VllmEngine
from dynalign.rollout.weights.version import Manifest

NOTHING = Manifest(1, 1, (), ()).pack()
"""A version without tensors."""


class ScriptedLlm:
    """Takes requests while `takes` is set. A pause ends when `paused` is set."""

    def __init__(self) -> None:
        self.takes = asyncio.Event()
        self.paused = asyncio.Event()
        self.submitted: list[str] = []
        self.engine_core = SimpleNamespace(pause_scheduler_async=self._pause)

    async def add_request(self, request_id: str, *_: Any, **__: Any) -> Any:
        await self.takes.wait()
        self.submitted.append(request_id)
        return SimpleNamespace(request_id=request_id, get=asyncio.Event().wait)

    async def abort(self, request_id: str, internal: bool) -> None:
        self.submitted.remove(request_id)

    async def _pause(self, **_: Any) -> None:
        await self.paused.wait()

    def shutdown(self) -> None:
        self.submitted.append("shut down")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def loading(engine: VllmEngine) -> "asyncio.Task[float]":
    task = asyncio.create_task(engine.load_weights("1.1", NOTHING, Path("version")))
    await turns()
    assert not task.done()
    return task


def test_a_load_that_is_cancelled_while_requests_are_being_submitted_blocks_none_and_changes_nothing() -> (
    None
):
    async def story() -> None:
        llm = ScriptedLlm()
        engine = VllmEngine(cast(Any, llm), "1.0", None)
        waiting = [asyncio.create_task(engine.generate(EngineRequest((1, 2))))]
        await turns()
        load = await loading(engine)
        waiting.append(asyncio.create_task(engine.generate(EngineRequest((3,)))))
        await turns()
        load.cancel()
        llm.takes.set()
        await turns()
        assert load.cancelled()
        assert llm.submitted == ["1", "2"]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_load_that_is_cancelled_later_ends_the_engine() -> None:
    async def story() -> None:
        llm = ScriptedLlm()
        engine = VllmEngine(cast(Any, llm), "1.0", None)
        load = await loading(engine)
        load.cancel()
        await asyncio.wait([load])
        assert llm.submitted == ["shut down"]
        with pytest.raises(EngineError, match="half-way"):
            await engine.generate(EngineRequest((1,)))

    asyncio.run(asyncio.wait_for(story(), 10))
