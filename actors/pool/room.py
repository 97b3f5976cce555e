"""Turns in one engine: many questions at once, or one alone.

A question that had an engine when it died is under suspicion, and is asked alone: `reserve` first, then ask.
So whoever asks knows of a death in between whether it was that question's: whoever still waits for its
reservation was not in the engine.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

CLAIM_S = 10.0
"""Seconds within which a reserved question has to come; its caller may have died."""


class Room:
    """places: questions at once."""

    def __init__(self, places: int, claim_s: float = CLAIM_S) -> None:
        self._places = places
        self._claim_s = claim_s
        self._turns = asyncio.Lock()
        """First come, first served: who waits to be alone holds back those that come later."""
        self._inside = 0
        self._left = asyncio.Event()
        self._alone: str | None = None
        self._lapse: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """A place beside others."""
        async with self._turns:
            await self._until(lambda: self._alone is None and self._inside < self._places)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    async def reserve(self, ticket: str) -> None:
        """Returns once nobody else is inside. Nobody comes in until `alone` has ended, or has not begun
        within the time to claim it."""
        async with self._turns:
            await self._until(lambda: self._alone is None and not self._inside)
            self._alone = ticket
            self._lapse = asyncio.get_running_loop().call_later(self._claim_s, self._release, ticket)

    @asynccontextmanager
    async def alone(self, ticket: str) -> AsyncIterator[bool]:
        """The reserved place: whether the reservation still holds."""
        if self._alone != ticket or self._lapse is None:
            yield False
            return
        self._lapse.cancel()
        self._inside += 1
        try:
            yield True
        finally:
            self._alone = None
            self._leave()

    def _release(self, ticket: str) -> None:
        if self._alone == ticket:
            self._alone = None
            self._left.set()

    def _leave(self) -> None:
        self._inside -= 1
        self._left.set()

    async def _until(self, is_free: Callable[[], bool]) -> None:
        """Returns once it is. Only the one whose turn it is waits here."""
        while not is_free():
            self._left.clear()
            await self._left.wait()
