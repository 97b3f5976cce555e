"""The newest published weight version, and those who wait for it.

Answers go out one after the other, `APART_S` apart: when all of a thousand workers hear of a version in the same moment, their answers and
their next questions keep the ledger from everything else for a second, and leases wait.
"""

import asyncio
import itertools
from contextlib import suppress

from rollout.weight_version import WeightVersion

APART_S = 0.002
"""Three times what an answer and the question behind it cost their process, so that leases pass in between."""


class NewestVersion:
    """`version`: None until the first `publish`."""

    def __init__(self) -> None:
        self.version: WeightVersion | None = None
        self._published, self._places = asyncio.Event(), itertools.count()

    def publish(self, version: WeightVersion) -> None:
        self.version = version
        self._published.set()
        self._published, self._places = asyncio.Event(), itertools.count()

    def above(self, after: tuple[int, int]) -> WeightVersion | None:
        """The newest version if it is above `after`, a (lineage, step). One of a newer lineage is above all of an older one, whatever
        their steps: what was rolled back is not served any more."""
        version = self.version
        return version if version is not None and (version.lineage, version.step) > after else None

    async def wait(self, after: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest version once it is above `after`; None if there is none within `wait_s`."""
        with suppress(TimeoutError):  # nothing was published: the clock decides
            async with asyncio.timeout(wait_s):
                while self.above(after) is None:
                    await self._published.wait()
                    await asyncio.sleep(next(self._places) * APART_S)
        return self.above(after)
