"""How a worker learns of new weight versions: from the answers to its reports and leases, and from a long
poll.

    lease loop   report, lease ──► leases, and the version that they name ──┐ poll         wait_version, the
    ledger's long poll ──────────────────────┴─► tell ──► next, the weight loop's wait

The poll is for a worker whose groups take long. While the answers bring the versions, the ledger leaves the
poll waiting, so that no worker makes a call for each version.
"""

import asyncio

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.rollout.weights.version import WeightVersion

POLL_S = 30.0
"""Seconds of one long poll. If its answer is lost, the next poll brings the version."""


class VersionNews:
    """The versions that one worker knows of."""

    def __init__(self, worker: str, ledger: LedgerLink) -> None:
        self._worker = worker
        self._ledger = ledger
        self.known = (0, 0)
        """(lineage, step) of the newest version; at first that of the initial policy, which is below every
        published one."""
        self._newest: WeightVersion | None = None
        self._came = asyncio.Event()

    def tell(self, version: WeightVersion | None) -> None:
        """Takes a version from an answer; None, or one that is known, changes nothing."""
        if version is not None and (version.lineage, version.step) > self.known:
            self._newest = version
            self.known = (version.lineage, version.step)
            self._came.set()

    async def poll(self) -> None:
        """Polls the ledger until it is cancelled."""
        while True:
            self.tell(await self._ledger.wait_version(self._worker, self.known, POLL_S))

    async def next(self, held: tuple[int, int]) -> WeightVersion:
        """The newest version once it is above `held`, a (lineage, step)."""
        while self._newest is None or self.known <= held:
            self._came.clear()
            await self._came.wait()
        return self._newest
