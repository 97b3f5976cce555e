"""A worker's leases: as many in flight as it has places, each renewed until its group is reported.

    lease loop    waits for: a free place, then a lease          unblocked by: a group reported; the ledger's capacity
                  starts one task of `work` per lease
    deliver       spool (durable) ─► report                      called by `work` with a group's bytes
    beat loop     every few seconds: renews the leases held; a lease no longer current has its task cancelled

It knows no engine: what a lease asks for is `work`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import ray

from actors.ledger_link import LedgerLink
from configs.errors import DeadlineExceeded
from configs.operation import DeadlineSettings
from rollout import spool
from rollout.evaluation_leases import EvaluationLease
from rollout.ledger_values import Lease, ScoredGroup
from rollout.spool import SpoolEntry

POLL_S = 5.0
"""One long poll; short enough that a stopping worker is not held up."""

_BEATS_PER_LEASE = 10  # renewals within one lease period, so that several may be lost

AnyLease = Lease | EvaluationLease


class LeaseLoop:
    """`worker`: its name. `places`: leases in flight at one time. `spool_folder`: the run's spool. `work`: makes what one lease asks for,
    and reports it; longer than deadlines.group_s, and the loop ends with DeadlineExceeded."""

    def __init__(
        self,
        worker: str,
        ledger: LedgerLink,
        places: int,
        spool_folder: Path,
        deadlines: DeadlineSettings,
        work: Callable[[AnyLease], Coroutine[Any, Any, None]],
    ) -> None:
        self._worker, self._ledger, self._places, self._spool = worker, ledger, places, spool_folder
        self._deadlines, self._work = deadlines, work
        self._stopping = asyncio.Event()
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self.idle_s = 0.0
        """Seconds with nothing in flight."""

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def stop(self) -> None:
        """Takes no more leases; what is in flight is finished and reported."""
        self._stopping.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Works until `stop`, with a task of `group` for each lease and one for the beat. An error of any of them is the group's."""
        beat = group.create_task(self._beat_loop())
        while not self._stopping.is_set():
            if len(self._tasks) >= self._places:
                await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                continue
            asked_s = time.monotonic()
            free, busy = self._places - len(self._tasks), bool(self._tasks)
            leases = await self._ledger.call("lease", self._worker, free, POLL_S, busy, wait_s=POLL_S)
            if not self._tasks:
                self.idle_s += time.monotonic() - asked_s
            for lease in leases:
                task = group.create_task(self._in_time(lease))
                self._tasks[lease.key] = task
                task.add_done_callback(lambda _, key=lease.key: self._tasks.pop(key, None))
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        beat.cancel()

    async def deliver(self, lease: Lease, payload: bytes, scored: Callable[[SpoolEntry], ScoredGroup]) -> None:
        """The bytes of a leased group, and what the ledger is told about it once they are a file. Durable before acknowledged: the
        report names a file that survives this worker; the object is a cache of it."""
        name = spool.group_file(lease.group_id, lease.lineage, lease.attempt)
        entry = await asyncio.to_thread(spool.write, self._spool, name, payload)
        await self._ledger.call("report", self._worker, scored(entry), [ray.put(payload)])

    async def _in_time(self, lease: AnyLease) -> None:
        """An engine can hang while everything around it answers, so a living worker's word is not enough."""
        deadline_s = self._deadlines.group_s
        clock = asyncio.timeout(deadline_s)
        try:
            async with clock:
                await self._work(lease)
        except TimeoutError as error:
            if clock.expired():
                raise DeadlineExceeded(f"{lease.key} in {self._worker}: its engine hangs", deadline_s) from error
            raise

    async def _beat_loop(self) -> None:
        deadlines = self._deadlines
        while True:
            await asyncio.sleep(min(deadlines.lease_s, deadlines.silence_s) / _BEATS_PER_LEASE)
            stale = await self._ledger.call("renew", self._worker, list(self._tasks))
            for key in stale:
                if key in self._tasks:
                    self._tasks[key].cancel()
