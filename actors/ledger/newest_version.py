"""The newest published weight version, and those who wait for it.

A worker that was told together with its leases goes on waiting for the next one. The others' answers go out
one after the other: when a hundred workers hear of a version in the same moment, their answers, their next
questions and the groups that have waited for it keep the ledger from everything else for a third of a
second, and leases wait. Workers that pull one after the other also do not all pull the same bytes from one
node at once.
"""

import asyncio
import itertools
from collections.abc import Iterator

from dynalign.rollout.weights.version import WeightVersion

APART_S = 0.01
"""From one answer to the next."""
LONGEST_S = 1.0
"""The last one's answer is no later than this, however many wait."""


class NewestVersion:
    """`version`: None until the first `publish`."""

    def __init__(self) -> None:
        self.version: WeightVersion | None = None
        self._published, self._waiting = asyncio.Event(), 0
        self._delays_s: Iterator[float] = itertools.count()
        self._told: dict[str, tuple[int, int]] = {}

    def publish(self, version: WeightVersion) -> None:
        self.version = version
        self._published.set()
        self._published = asyncio.Event()
        self._delays_s = itertools.count(0.0, min(APART_S, LONGEST_S / max(1, self._waiting)))

    def above(self, after: tuple[int, int]) -> WeightVersion | None:
        """The newest version if it is above `after`, a (lineage, step). One of a newer lineage is above all
        of an older one, whatever their steps: what was rolled back is not served any more."""
        version = self.version
        return version if version is not None and (version.lineage, version.step) > after else None

    def tell(self, worker: str, known: tuple[int, int]) -> WeightVersion | None:
        """The newest version if it is above `known`, at once; the worker's `wait` that is under way is not
        answered with it."""
        version = self.above(known)
        if version is not None:
            self._told[worker] = (version.lineage, version.step)
        return version

    def leave(self, worker: str) -> None:
        self._told.pop(worker, None)

    async def wait(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest version once it is above `known`; None if there is none within `wait_s`, or the worker
        was told meanwhile."""
        self._told[worker] = known  # whatever it was told before, this is what has arrived
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                while self.above(self._told.get(worker, known)) is None:
                    await self._published.wait()
                    await asyncio.sleep(next(self._delays_s))
        except TimeoutError:
            pass  # nothing was published, or this one's turn had not come: the clock decides
        finally:
            self._waiting -= 1
        return self.above(self._told.get(worker, known))
