"""What is opened when it is first needed, and closed with its command: the engines of an offline command.

    first `get` ─► a task of its own enters the context ─► the value, for everybody who waits for it
    `close`     ─► that task leaves it; what was never needed is never opened

A context is left by the task that entered it, whoever needed it first.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, TypeVar

from dynalign.endpoint.base import Answers, Question
from dynalign.endpoint.outcome import FailedCall, Sender

T = TypeVar("T")


class OnDemand(Generic[T]):
    """open: makes the context. Used from one event loop."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open = open
        self._keeping: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._ends = asyncio.Event()

    async def get(self) -> T:
        """What the context yields. Raises what entering it raises, to each caller."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        either: list[asyncio.Future[T] | asyncio.Task[None]] = [self._opened, self._keeping]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._opened.done():
            await self._keeping
        return self._opened.result()

    async def close(self) -> None:
        """Leaves the context, also while it is being entered. Raises what leaving it raises."""
        if self._keeping is None:
            return
        if not self._opened.done():
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._keeping])
            return  # what entering it raised, `get` has raised
        self._ends.set()
        await self._keeping

    async def _keep(self) -> None:
        async with self._open() as value:
            self._opened.set_result(value)
            await self._ends.wait()


class SenderOnDemand:
    """A `Sender` that is opened with the first question that comes to it: behind a journal, the first one
    that the journal does not answer. Opening takes nothing from the question's time."""

    def __init__(self, sender: OnDemand[Sender]) -> None:
        self._sender = sender

    async def send(self, question: Question, timeout_s: float) -> Answers | FailedCall:
        """See `Sender.send`. Raises what opening the sender raises, RunFailed where no engine starts."""
        sender = await self._sender.get()
        return await sender.send(question, timeout_s)
