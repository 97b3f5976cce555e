"""Calls of the coordinator that wait until the ledger's state is what they need."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from dynalign.configs.errors import DeadlineExceeded

LOOK_S = 1.0
"""Seconds after which a waiting call looks again without a change: the expiry of a lease is noticed no
later."""


class Changes:
    """clock: the ledger's, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """The state has changed: every waiting call looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, until_s: float, deadline_s: float, waiting_for: Callable[[], str]) -> None:
        """Returns after the next change, or after LOOK_S. until_s: when the caller's `deadline_s` end, on the
        clock. Raises DeadlineExceeded after that, with what the caller waited for."""
        left_s = until_s - self._clock()
        if left_s <= 0.0:
            raise DeadlineExceeded(waiting_for(), deadline_s)
        with suppress(TimeoutError):  # the caller looks at the clock, too
            async with asyncio.timeout(min(left_s, LOOK_S)):
                await self._changed.wait()
