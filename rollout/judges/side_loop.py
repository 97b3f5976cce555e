"""Code of the user's, away from the engine's event loop: it may block, and nothing waits for it for ever."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dynalign.configs.errors import DeadlineExceeded

T = TypeVar("T")


class SideLoop:
    """An event loop in a thread of its own, which ends with the process, whatever still runs in it."""

    def __init__(self, name: str) -> None:
        """name: what runs in it, for errors and debuggers."""
        self._name = name
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    async def run(self, work: Coroutine[Any, Any, T], deadline_s: float) -> T | BaseException:
        """The result of `work`, which runs in the side loop, or what it raised.

        Raises DeadlineExceeded after `deadline_s` seconds. The work is cancelled then, unless it blocks."""
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        try:
            await asyncio.wait([future], timeout=deadline_s)
            if not future.done():
                raise DeadlineExceeded(self._name, deadline_s)
        finally:
            future.cancel()
        if future.cancelled():
            return asyncio.CancelledError()
        return future.exception() or future.result()
