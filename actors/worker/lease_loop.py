"""A worker's leases: as many in flight as it has places, each renewed until its group is reported.

    run       waits for: something to report, a free place, leases     unblocked by: `deliver`; the ledger's
    capacity
              one call reports all groups that have come meanwhile and takes leases for their places where
              there are none at once, a call that waits in the ledger for the free places, beside the
              reports
    deliver   spool (durable) ─► the next report ─► acknowledged       called by `work` with a group's bytes
    beat      every few seconds: renews the leases held; a lease no longer current has its task cancelled

It knows no engine: what a lease asks for is `work`. The more groups a worker has in flight, the fewer calls
each costs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ray

from dynalign.actors.ledger.lease_queue import AnyLease
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.worker.version_news import VersionNews
from dynalign.configs.errors import DeadlineExceeded
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.rollout.ledger.values import Delivered, Lease, ScoredGroup
from dynalign.run_folder import layout, spool
from dynalign.run_folder.spool import SpoolEntry

POLL_S = 5.0
"""One long poll; short enough that a stopping worker is not held up."""

REPORTS_APART_S = 0.02
"""While other groups are at work, the least time from one report's answer to the next report: what ends
meanwhile shares that call."""

_BEATS_PER_LEASE = 10  # renewals within one lease period, so that several may be lost


def several_nodes() -> bool:
    """Whether the learner may be on a node that does not see this one's files. On a single node the spool's
    file is as near as an object, which costs its worker and the node's Ray processes more than everything
    else that becomes of a group."""
    return sum(node["Alive"] for node in ray.nodes()) > 1


class _Sent(NamedTuple):
    delivered: Delivered
    acknowledged: "asyncio.Future[None]"


class LeaseLoop:
    """`worker`: its name. `places`: leases in flight at one time. `spool_folder`: the run's spool. `work`:
    makes what one lease asks for, and reports it; longer than deadlines.group_s, and the loop ends with
    DeadlineExceeded. `news`: told what the ledger's answers bring. `several_nodes`: see there."""

    def __init__(
        self,
        worker: str,
        ledger: LedgerLink,
        places: int,
        spool_folder: Path,
        deadlines: DeadlineSettings,
        work: Callable[[AnyLease], Coroutine[Any, Any, None]],
        news: VersionNews,
        several_nodes: Callable[[], bool] = several_nodes,
    ) -> None:
        self._worker, self._ledger, self._places, self._spool = worker, ledger, places, spool_folder
        self._deadlines, self._work, self._news = deadlines, work, news
        self._stopping = False
        self._changed = asyncio.Event()
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._outbox: list[_Sent] = []
        self._delivering = 0
        self._several_nodes, self._objects = several_nodes, True
        self._idle_s, self._idle_from_s = 0.0, time.monotonic()
        self._answered_s = -REPORTS_APART_S

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    @property
    def idle_s(self) -> float:
        """Seconds with nothing in flight."""
        return self._idle_s + (0.0 if self._tasks else time.monotonic() - self._idle_from_s)

    def stop(self) -> None:
        """Takes no more leases; what is in flight is finished and reported."""
        self._stopping = True
        self._changed.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Works until `stop`, with a task of `group` for each lease and one for the beat. An error of any
        of them is the group's."""
        beat, waiting = group.create_task(self._beat_loop()), None
        while True:
            self._changed.clear()
            if waiting is not None and waiting.done():
                self._begin(group, waiting.result())
                waiting = None
            if self._stopping and not self._tasks and waiting is None:
                break
            working = len(self._tasks) - self._delivering
            free = 0 if self._stopping or waiting is not None else max(0, self._places - working)
            early_s = self._answered_s + REPORTS_APART_S - time.monotonic() if working else 0.0
            if self._outbox and early_s <= 0.0:
                self._begin(group, await self._report(free, busy=working > 0))
                self._answered_s = time.monotonic()
            elif self._outbox:
                asyncio.get_running_loop().call_later(early_s, self._changed.set)
                await self._changed.wait()
            elif free > 0:
                waiting = group.create_task(self._lease(free, working > 0))
                waiting.add_done_callback(lambda _: self._changed.set())
            else:
                await self._changed.wait()
        beat.cancel()

    async def deliver(
        self, lease: Lease, payload: bytes, scored: Callable[[SpoolEntry], ScoredGroup]
    ) -> None:
        """The bytes of a leased group, and what the ledger is told about it once they are a file. Durable
        before acknowledged: the report names a file that survives this worker; the object is a cache of it,
        for a learner on another node."""
        name = layout.group_file(lease.group_id, lease.lineage, lease.attempt)
        entry = await asyncio.to_thread(spool.write, self._spool, name, payload)
        sent = _Sent(
            Delivered(scored(entry), ray.put(payload) if self._objects else None),
            asyncio.get_running_loop().create_future(),
        )
        self._outbox.append(sent)
        self._delivering += 1
        self._changed.set()
        try:
            await sent.acknowledged
        finally:
            self._delivering -= 1

    async def _lease(self, free: int, busy: bool) -> Iterable[AnyLease]:
        answer = await self._ledger.lease(self._worker, free, POLL_S, busy, self._news.known)
        self._news.tell(answer.version)
        return answer.leases

    async def _report(self, free: int, busy: bool) -> Iterable[AnyLease]:
        sent, self._outbox = self._outbox, []
        delivered = [each.delivered for each in sent]
        answer = await self._ledger.report(self._worker, delivered, free, busy, self._news.known)
        self._news.tell(answer.version)
        for each in sent:
            if not each.acknowledged.done():  # cancelled, when a beat came between
                each.acknowledged.set_result(None)
        await asyncio.sleep(0)  # their tasks end before others take their places
        return answer.leases

    def _begin(self, group: asyncio.TaskGroup, leases: Iterable[AnyLease]) -> None:
        for lease in leases:
            if not self._tasks:
                self._idle_s += time.monotonic() - self._idle_from_s
            task = group.create_task(self._in_time(lease))
            self._tasks[lease.key] = task
            task.add_done_callback(lambda _, key=lease.key: self._ended(key))

    def _ended(self, key: Any) -> None:
        del self._tasks[key]
        if not self._tasks:
            self._idle_from_s = time.monotonic()
        self._changed.set()

    async def _in_time(self, lease: AnyLease) -> None:
        """An engine can hang while everything around it answers, so a living worker's word is not enough."""
        deadline_s = self._deadlines.group_s
        clock = asyncio.timeout(deadline_s)
        try:
            async with clock:
                await self._work(lease)
        except TimeoutError as error:
            if clock.expired():
                raise DeadlineExceeded(
                    f"{lease.key} in {self._worker}: its engine hangs", deadline_s
                ) from error
            raise

    async def _beat_loop(self) -> None:
        deadlines = self._deadlines
        while True:
            self._objects = await asyncio.to_thread(self._several_nodes)
            await asyncio.sleep(min(deadlines.lease_s, deadlines.silence_s) / _BEATS_PER_LEASE)
            stale = await self._ledger.renew(self._worker, list(self._tasks))
            for key in stale:
                if key in self._tasks:
                    self._tasks[key].cancel()
