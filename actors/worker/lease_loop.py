"""A worker's leases: as many in flight as it has slots, each renewed until its group is reported. One of an
evaluation or the capability probe may be beside them, in no slot.

    run       waits for: reports, free slots, leases           unblocked by: `deliver`; the ledger's capacity
              one call reports all groups that were delivered meanwhile and takes leases for their slots
              where there are none at once, another call waits in the ledger for leases, beside the reports
    deliver   spool (durable) ─► the next report ─► acknowledged       called by `work`
    beat      every few seconds: renews the leases held; a lease that is void has its task cancelled

It knows no engine: `work` does what a lease asks for. The more groups a worker has in flight, the fewer calls
each costs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import ray

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.worker.version_news import VersionNews
from dynalign.configs.errors import DeadlineExceeded
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.rollout.ledger.kinds import AnyKey, AnyLease
from dynalign.rollout.ledger.values import Delivered, Lease, ScoredGroup, WithheldScores
from dynalign.run_folder import layout, spool

POLL_S = 5.0
"""Seconds of one long poll; short, so that a worker can stop soon."""

REPORTS_APART_S = 0.02
"""Least seconds from a report's answer to the next report while other groups are in flight: groups that end
meanwhile share that call."""

_BEATS_PER_LEASE = 10
"""Renewals within one lease period: several may be lost before the lease expires."""


def several_nodes() -> bool:
    """Whether the learner may be on a node that does not see this one's files.

    On a single node the spool's file is as near as an object, and making the object would cost its worker and
    Ray more than all other steps of a delivery together.
    """
    nodes: list[dict[str, Any]] = cast(Any, ray).nodes()
    return len([node for node in nodes if node["Alive"]]) > 1


class _Sent(NamedTuple):
    delivered: Delivered
    acknowledged: "asyncio.Future[None]"


class LeaseLoop:
    """The leases of one worker.

    slots: leases in flight at one time. work: makes what one lease asks for and reports it; if it takes
    longer than deadlines.group_s, the loop ends with DeadlineExceeded. news: receives the versions that the
    ledger's answers bring. several_nodes: see the function. clock: seconds, that of the event loop.
    """

    def __init__(
        self,
        worker: str,
        ledger: LedgerLink,
        slots: int,
        spool_folder: Path,
        deadlines: DeadlineSettings,
        work: Callable[[AnyLease], Coroutine[Any, Any, None]],
        news: VersionNews,
        several_nodes: Callable[[], bool] = several_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._ledger = ledger
        self._slots = slots
        self._spool = spool_folder
        self._deadlines = deadlines
        self._work = work
        self._news = news
        self._stopping = False
        self._changed = asyncio.Event()
        self._tasks: dict[AnyKey, asyncio.Task[None]] = {}
        self._beside: set[AnyKey] = set()
        """Of these, leases that take no slot of a group."""
        self._outbox: list[_Sent] = []
        self._delivering = 0
        self._several_nodes = several_nodes
        self._clock = clock
        self._objects = True
        self._idle_s = 0.0
        self._idle_from_s = clock()
        self._answered_s = -REPORTS_APART_S

    @property
    def in_flight(self) -> int:
        """Leases that are worked on now."""
        return len(self._tasks)

    @property
    def idle_s(self) -> float:
        """Seconds without any lease, since the start."""
        return self._idle_s + (0.0 if self._tasks else self._clock() - self._idle_from_s)

    def stop(self) -> None:
        """Takes no more leases; what is in flight is finished and reported."""
        self._stopping = True
        self._changed.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Works until `stop`, with a task of `group` for each lease and one for the beat.

        An error of any of them ends the group.
        """
        beat = group.create_task(self._beat_loop())
        waiting = None
        while True:
            self._changed.clear()
            if waiting is not None and waiting.done():
                self._begin(group, waiting.result())
                waiting = None
            if self._stopping and not self._tasks and waiting is None:
                break
            working = len(self._tasks) - self._delivering
            in_slots = working - len(self._beside)
            free = 0 if self._stopping or waiting is not None else max(0, self._slots - in_slots)
            early_s = self._answered_s + REPORTS_APART_S - self._clock() if working else 0.0
            if self._outbox and early_s <= 0.0:
                self._begin(group, await self._report(free, holds_other_leases=working > 0))
                self._answered_s = self._clock()
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
        self,
        lease: Lease,
        payload: bytes,
        versions: tuple[int, int],
        withheld_reason: str | None = None,
        withheld: WithheldScores | None = None,
        completion_tokens: int = 0,
    ) -> None:
        """Writes a leased group's bytes to the spool and reports it; returns when the ledger has acknowledged
        the report.

        The report names a file that outlives this worker. The object beside it is a cache for a learner on
        another node. versions: of the group's oldest and newest token, in steps. withheld_reason: why it is
        not to be trained; None if it is. withheld, completion_tokens: as in `Delivered`. Raises OSError from
        the disk.
        """
        name = layout.group_file(lease.group_id, lease.lineage, lease.attempt)
        entry = await asyncio.to_thread(spool.write, self._spool, name, payload)
        group = ScoredGroup(
            lease.group_id, lease.attempt, lease.lineage, entry, *versions, withheld_reason=withheld_reason
        )
        handle = ray.put(payload) if self._objects else None
        delivered = Delivered(group, handle, withheld, completion_tokens)
        sent = _Sent(delivered, asyncio.get_running_loop().create_future())
        self._outbox.append(sent)
        self._delivering += 1
        self._changed.set()
        try:
            await sent.acknowledged
        finally:
            self._delivering -= 1

    async def _lease(self, free: int, holds_other_leases: bool) -> Iterable[AnyLease]:
        answer = await self._ledger.lease(self._worker, free, POLL_S, holds_other_leases, self._news.known)
        self._news.tell(answer.version)
        return answer.leases

    async def _report(self, free: int, holds_other_leases: bool) -> Iterable[AnyLease]:
        sent = self._outbox
        self._outbox = []
        delivered = [each.delivered for each in sent]
        answer = await self._ledger.report(
            self._worker, delivered, free, holds_other_leases, self._news.known
        )
        self._news.tell(answer.version)
        for each in sent:
            if not each.acknowledged.done():  # the beat may have cancelled it
                each.acknowledged.set_result(None)
        await asyncio.sleep(0)  # their tasks end before new ones take their slots
        return answer.leases

    def _begin(self, group: asyncio.TaskGroup, leases: Iterable[AnyLease]) -> None:
        for lease in leases:
            if not self._tasks:
                self._idle_s += self._clock() - self._idle_from_s
            task = group.create_task(self._in_time(lease))
            self._tasks[lease.key] = task
            if lease.beside:
                self._beside.add(lease.key)
            task.add_done_callback(partial(self._task_done, lease.key))

    def _task_done(self, key: AnyKey, _: "asyncio.Task[None]") -> None:
        del self._tasks[key]
        self._beside.discard(key)
        if not self._tasks:
            self._idle_from_s = self._clock()
        self._changed.set()

    async def _in_time(self, lease: AnyLease) -> None:
        """An engine can hang while its worker answers every call, so each lease has a deadline of its own."""
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
