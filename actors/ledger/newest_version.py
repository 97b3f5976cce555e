"""The newest published weight version, and the workers that wait for it.

The spacing of the answers is for many workers. When a hundred of them learn of a version at once, their
answers, their next calls and the groups that have waited for it occupy the ledger for a third of a second,
and leases wait. Spaced answers also keep the workers from pulling the same bytes from one node at once. A
worker that got the version together with its leases is not answered again: its call goes on waiting for the
next version.
"""

import asyncio
import itertools
from collections.abc import Iterator

from dynalign.rollout.weights.version import WeightVersion

APART_S = 0.01
"""Seconds from one answer to the next."""
LONGEST_S = 1.0
"""Seconds after which the last worker has its answer, however many wait."""


class NewestVersion:
    """`version`: None until the first `publish`."""

    def __init__(self) -> None:
        self.version: WeightVersion | None = None
        self._published = asyncio.Event()
        self._waiting = 0
        self._delays_s: Iterator[float] = itertools.count()
        self._sent: dict[str, tuple[int, int]] = {}
        """Worker to the (lineage, step) that it was sent last."""

    def publish(self, version: WeightVersion) -> None:
        """`version` can be pulled from now on."""
        self.version = version
        self._published.set()
        self._published = asyncio.Event()
        self._delays_s = itertools.count(0.0, min(APART_S, LONGEST_S / max(1, self._waiting)))

    def above(self, after: tuple[int, int]) -> WeightVersion | None:
        """The newest version if it is above `after`, a (lineage, step).

        One of a newer lineage is above all of an older one, whatever their steps: versions that were rolled
        back are not served.
        """
        version = self.version
        return version if version is not None and (version.lineage, version.step) > after else None

    def tell(self, worker: str, known: tuple[int, int]) -> WeightVersion | None:
        """The newest version if it is above `known`, at once.

        The worker's `wait` under way is not answered with it.
        """
        version = self.above(known)
        if version is not None:
            self._sent[worker] = (version.lineage, version.step)
        return version

    def leave(self, worker: str) -> None:
        """The worker is gone."""
        self._sent.pop(worker, None)

    async def wait(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest version once it is above `known`; None if there is none within `wait_s` seconds, or if
        `tell` has sent it."""
        self._sent[worker] = known  # an answer of `tell` may have been lost; this is what has arrived
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                while self.above(self._sent.get(worker, known)) is None:
                    await self._published.wait()
                    await asyncio.sleep(next(self._delays_s))
        except TimeoutError:
            pass  # a version published meanwhile is returned all the same
        finally:
            self._waiting -= 1
        return self.above(self._sent.get(worker, known))
