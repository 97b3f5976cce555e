"""What a worker hears of weight versions: with the answers to its reports and waits for leases, and by a
long poll besides.

    lease loop   report, lease ──► leases, and the version that they name ──┐ poll         wait_version, the
    ledger's long poll ──────────────────────┴─► tell ──► next, the weight loop's wait

A worker that gets leases has no call for versions alone, however many there are: the ledger leaves its poll
waiting for the next one. The poll is for one whose groups take long.
"""

import asyncio

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.rollout.weights.version import WeightVersion

POLL_S = 30.0
"""One long poll. After a lost answer the next one brings the version."""


class VersionNews:
    """Of the worker so named. `known`: (lineage, step) of the newest version heard of; at first the policy
    that every engine starts with, which is below every published one."""

    def __init__(self, worker: str, ledger: LedgerLink) -> None:
        self._worker, self._ledger = worker, ledger
        self.known = (0, 0)
        self._newest: WeightVersion | None = None
        self._came = asyncio.Event()

    def tell(self, version: WeightVersion | None) -> None:
        """None, and what is known already, is no news."""
        if version is not None and (version.lineage, version.step) > self.known:
            self._newest, self.known = version, (version.lineage, version.step)
            self._came.set()

    async def poll(self) -> None:
        """For as long as the worker serves."""
        while True:
            self.tell(await self._ledger.wait_version(self._worker, self.known, POLL_S))

    async def next(self, held: tuple[int, int]) -> WeightVersion:
        """The newest version once it is above `held`, a (lineage, step)."""
        while self._newest is None or self.known <= held:
            self._came.clear()
            await self._came.wait()
        return self._newest
