"""Many uses of an engine, or one swap of its weights, never both at once.

    passing    waits while there is a swap; then several at a time     judge batches, requests being submitted
    swapping   one at a time; holds back who comes later, and          a weight version being loaded
               waits until all that have passed are through

Both end without waiting, so that whatever ends them, also a cancellation while they wait, leaves the gate as
if they had not been.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class SwapGate:
    """The gate of one engine, on one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._inside = 0
        self._swapping = False

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """No swap begins inside. A swap that waits goes first."""
        await self._until(lambda: not self._swapping)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._notify()

    @asynccontextmanager
    async def swapping(self) -> AsyncIterator[None]:
        """Nothing else is inside."""
        await self._until(lambda: not self._swapping)
        self._swapping = True
        try:
            await self._until(lambda: self._inside == 0)
            yield
        finally:
            self._swapping = False
            self._notify()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
