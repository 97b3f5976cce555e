"""The Ray actor that grants leases, takes reports and commits steps to disk, by the rules of
`rollout/ledger`.

    rollout workers                       LedgerActor                               coordinator
    lease ────────waits for capacity────► Ledger (rules) ◄─waits for P groups────── take
    report ──► scored: handle kept        │ log line, synced, then                  commit ─► step trained
    renew, wait_version ◄─────────────────┴─ _notify() after every change ────────► evaluate

Every method runs on the actor's one event loop and changes state only between two awaits, so no lock is
needed. A waiting call consumes nothing. After a change the waiting leases are served as far as there is
capacity (`LeaseQueue`), and `take` and `evaluate` look again (`Changes`). Calls that wait for a version are
answered after a publication, spaced (`NewestVersion`). Expired leases are given back by `_tick`, with which
every call begins, and every look of the queue; an error in it is raised in that call.

A ledger that was replaced while it hung answers no call: `_tick` and every write look whether the log is
still the one that it opened.

Object references arrive and leave inside tuples and are never dereferenced: no sample passes through this
process. Each worker has two calls pending here, so the actor needs `CALLS` as its max_concurrency (Ray's
default is 1,000).
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from dynalign.actors import logs
from dynalign.actors.ledger.changes import LOOK_S, Changes
from dynalign.actors.ledger.group_files import GroupFiles
from dynalign.actors.ledger.lease_queue import LeaseQueue
from dynalign.actors.ledger.ledger_spec import Answer, Batch, LedgerSpec
from dynalign.actors.ledger.newest_version import NewestVersion
from dynalign.actors.ledger.opening import open_ledger
from dynalign.actors.ledger.protocol import Known, LedgerCalls
from dynalign.actors.packed_calls import PackedCalls
from dynalign.configs.errors import LedgerError, StaleLineage
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationLeases,
    EvaluationResult,
    PoisonedItem,
)
from dynalign.rollout.ledger.kinds import AnyKey, AnyLease
from dynalign.rollout.ledger.restore import compacted
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.ledger.values import Break, Delivered, GroupKey, ReportOutcome
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import owner

CALLS = 100_000
"""Calls that may be pending in the actor at one time.

With one more, reports would wait until other calls end.
"""

COMPACT_BYTES = 1 << 20
"""Size of the log, in bytes, below which it is not compacted.

Each time it doubles after that, the next checkpoint compacts it, which takes about 0.1 s per MB.
"""


class LedgerActor(PackedCalls):
    """The actor. Call `start` once, then everything else. `wait_s` and `deadline_s` are seconds from the
    call.

    clock: seconds; leases end by it. fsync: see `LedgerLog`.
    """

    def __init__(
        self,
        spec: LedgerSpec,
        clock: Callable[[], float] = time.monotonic,
        fsync: Callable[[int], object] = os.fsync,
        compact_bytes: int = COMPACT_BYTES,
    ) -> None:
        self._spec = spec
        self._clock = clock
        self._fsync = fsync
        self._compact_bytes = compact_bytes
        self._compacted_bytes = 0
        self._folder = Path(spec.run_folder)
        self._started = asyncio.Event()
        self._changes = Changes(clock)
        self._queue = LeaseQueue(self._lease, self._tick, LOOK_S)
        self._newest = NewestVersion()
        self._straggler_wait_s = 0.0
        self._files = GroupFiles()
        self._workers_seen_s: dict[str, float] = {}
        self._workers_gone: set[str] = set()
        """Names are not used twice, so a worker that is gone stays so."""

    async def start(self) -> None:
        """Rebuilds the ledger from checkpoint, log and spool.

        Raises CheckpointError, RecordError or StaleLineage if they do not fit together.
        """
        spec = self._spec
        logs.configure(
            spec.run, "ledger", lambda: self._newest.version.label if self._newest.version else "-"
        )
        self._ledger, self._log = await open_ledger(spec, self._fsync)
        self._leases = self._ledger.leases
        self._evaluations = EvaluationLeases(self._leases, spec.lineage, self._ledger.attempts_before)
        gc.freeze()  # a collection that walks through all objects of the libraries stops every call for 60 ms
        self._started.set()

    async def started(self) -> None:
        """Returns once the ledger can be called."""
        await self._started.wait()

    # ---- workers

    async def lease(
        self,
        worker: str,
        max_groups: int,
        wait_s: float,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> Answer:
        """Up to `max_groups` leases, held-out ones first; none when there is nothing to lease for `wait_s`.

        holds_other_leases: the worker works on something, so it gets no prompt under quarantine. A worker
        that is gone gets nothing: its last call may still wait here.
        """
        self._tick(worker)
        wait_s = 0.0 if worker in self._workers_gone else wait_s
        leases = await self._queue.lease(worker, max_groups, wait_s, holds_other_leases)
        return self._answer(worker, (), leases, known)

    def _lease(self, worker: str, max_groups: int, holds_other_leases: bool) -> list[AnyLease] | None:
        """None if there is nothing to lease for any worker."""
        if worker in self._workers_gone:
            return []
        # A lease names a version, which must be one that can be pulled.
        published = self._newest.above((self._spec.lineage, self._ledger.state.version - 1))
        if published is None or not self._leases.something_waits():
            return None
        return self._leases.lease(worker, max_groups, self._clock(), holds_other_leases)

    async def renew(self, worker: str, keys: Sequence[AnyKey]) -> list[AnyKey]:
        """Extends the worker's leases. Returns those that are no longer its own, whose work can be
        dropped."""
        return self._leases.renew(worker, keys, self._tick(worker))

    async def report(
        self,
        worker: str,
        delivered: Sequence[Delivered],
        max_groups: int = 0,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> Answer:
        """Takes groups whose files are in the spool, then grants up to `max_groups` leases without waiting.
        holds_other_leases: as for `lease`, these groups not counted."""
        self._tick(worker)
        outcomes = [self._ledger.report(group) for group, _ in delivered]
        scored = [each for each, outcome in zip(delivered, outcomes, strict=True) if outcome == "scored"]
        self._log.append(*(self._ledger.state.scored[group.group_id] for group, _ in scored), durable=False)
        self._files.keep(scored)
        self._notify()
        leases: list[AnyLease] = []
        if max_groups:
            leases = await self._queue.lease(worker, max_groups, 0.0, holds_other_leases)
        return self._answer(worker, outcomes, leases, known)

    def _answer(
        self,
        worker: str,
        outcomes: Sequence[ReportOutcome],
        leases: Sequence[AnyLease],
        known: Known,
    ) -> Answer:
        version = None if known is None else self._newest.tell(worker, known)
        return Answer(tuple(outcomes), tuple(leases), version)

    async def withhold(self, worker: str, key: GroupKey, reason: str) -> ReportOutcome:
        """A leased group that the worker cannot make is not to be trained; `reason` says why."""
        self._tick(worker)
        outcome = self._ledger.withhold(key, reason)
        self._notify()
        return outcome

    async def report_evaluation(self, worker: str, result: EvaluationResult) -> str:
        """Takes the answer to a held-out lease. Returns `scored`, `late` or `repeated`, as `report` does."""
        self._tick(worker)
        outcome = self._evaluations.report(result)
        self._notify()
        return outcome

    async def wait_version(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest published version once it is above `known`, a (lineage, step); None if there is none
        within `wait_s`, or if another answer has brought it."""
        self._tick()
        return await self._newest.wait(worker, known, wait_s)

    async def worker_left(self, worker: str, died: bool) -> list[Break | PoisonedItem]:
        """A worker is gone: what it held waits for another lease at once. died: it did not leave by itself,
        so a prompt that it held may have broken it. Returns what is withheld as poison for that."""
        self._tick()
        poisoned: list[Break | PoisonedItem] = []
        if died:
            deaths = self._leases.worker_died(worker)
            # Kept on disk, so that a restart, a resume or a rollback does not lift the quarantine.
            self._log.append(*(each for each in deaths if isinstance(each, Break)), durable=True)
            poisoned = [
                each
                for each in deaths
                if isinstance(each, PoisonedItem) or (isinstance(each, Break) and each.poison)
            ]
        else:
            self._leases.worker_left(worker)
        self._workers_seen_s.pop(worker, None)
        self._workers_gone.add(worker)
        self._queue.leave(worker)
        self._newest.leave(worker)
        self._notify()
        return poisoned

    # ---- the coordinator

    async def take(self, step: int, deadline_s: float) -> Batch:
        """The batch of `step`; the same step gets the same batch.

        Raises NoSignal and LedgerError as the rules do, DeadlineExceeded with what it waited for.
        """
        until_s = self._clock() + deadline_s
        while True:
            now_s = self._tick()
            reservation = self._ledger.take(step)
            if reservation is not None:
                return self._files.batch(reservation)
            straggling = self._ledger.straggler() is not None
            await self._changes.wait(until_s, deadline_s, self._ledger.waiting_reason)
            if straggling:
                self._straggler_wait_s += self._clock() - now_s

    async def take_present(self, step: int, deadline_s: float) -> Batch | None:
        """The scored groups for `step`, once no leased group would become too old by being left behind; None
        if nothing is scored and nothing is leased."""
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            reservation = self._ledger.take_present(step)
            if reservation is not None:
                return self._files.batch(reservation)
            if not self._ledger.state.scored and not self._ledger.state.leased:
                return None
            await self._changes.wait(until_s, deadline_s, self._ledger.waiting_reason)

    async def refill(self) -> None:
        """Lets the present step replace another max_refill * P groups without signal."""
        self._tick()
        self._ledger.refill()
        self._notify()

    async def requeue_missing(self, step: int, group_ids: Sequence[int]) -> None:
        """Groups of the batch whose bytes cannot be found are generated again; `take` then fills the batch
        up. Raises UnreadableGroups for too many such batches in a row."""
        self._tick()
        self._files.drop(self._ledger.requeue_missing(step, group_ids))
        self._notify()

    async def withhold_unreadable(self, step: int, group_ids: Sequence[int]) -> None:
        """Groups of the batch whose files cannot be trained on are withheld; `take` then fills the batch up.

        Raises UnreadableGroups like `requeue_missing`.
        """
        self._tick()
        self._files.drop(self._ledger.withhold_unreadable(step, group_ids))
        self._notify()

    async def commit(self, step: int, version: WeightVersion, group_ids: Sequence[int] | None = None) -> None:
        """The batch's groups become trained.

        Once the log's line is on disk, `version` can be pulled and leases name it.

        Can be repeated. A slow disk delays leases, and no other call. group_ids: see `plan_commit`. Raises
        StaleLineage when another driver has taken the run over, whose history must not get a line of this
        one; LedgerError for a step out of turn or a version of another step; OSError from the disk, after
        which it can be repeated.
        """
        owner.check(self._folder, self._spec.lineage)
        self._tick()
        planned = self._ledger.plan_commit(step, group_ids)
        if planned is not None:
            self._log.append(planned, durable=False)
            self._files.train(planned, self._ledger.state)
            self._ledger.apply(planned)
        # Repeated commits sync too: the first one may have failed here.
        await asyncio.to_thread(self._log.sync)
        self._log.check()
        self._publish(version)

    async def offer(self, version: WeightVersion) -> bool:
        """Publishes the version that the run starts or goes on from; False if it is not that of the last
        committed step. Nothing is leased before a version is published."""
        self._tick()
        if version.step != self._ledger.state.version:
            return False
        self._publish(version)
        return True

    def _publish(self, version: WeightVersion) -> None:
        # A coordinator of another lineage does not know yet that it was replaced.
        if version.lineage != self._spec.lineage:
            raise StaleLineage(version.lineage, self._spec.lineage)
        if version.step != self._ledger.state.version:
            raise LedgerError(
                f"version {version.step} is not that of the last committed step, {self._ledger.state.version}"
            )
        self._newest.publish(version)
        self._notify()

    async def forget(self, step: int, listed: Sequence[str]) -> list[str]:
        """The checkpoint of `step` is whole: those spool files of `listed` that can be removed, see
        `GroupFiles.removable`. Raises StaleLineage like `commit`."""
        owner.check(self._folder, self._spec.lineage)
        self._tick()
        if self._log.size_bytes >= max(self._compact_bytes, 2 * self._compacted_bytes):
            self._log.rewrite(lambda lines: compacted(lines, self._ledger, step))
            self._compacted_bytes = self._log.size_bytes
        return self._files.removable(self._ledger.state, step, listed)

    async def evaluate(
        self, evaluation: int, items: Sequence[EvaluationItem], deadline_s: float
    ) -> tuple[EvaluationResult, ...]:
        """Has held-out items answered by the policy of step `evaluation`, ahead of all training groups; the
        results in their order. Repeated, it goes on with the results that are there. Raises DeadlineExceeded
        with what is missing."""
        self._evaluations.open(evaluation, items)
        self._notify()
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            results = self._evaluations.results(evaluation)
            if results is not None:
                return results
            await self._changes.wait(until_s, deadline_s, self._evaluations.waiting_reason)

    async def pause(self) -> None:
        """No training group is leased until `resume`. Leased groups and an open evaluation go on."""
        self._tick()
        self._ledger.paused = True

    async def resume(self) -> None:
        """Training groups are leased again."""
        self._tick()
        self._ledger.paused = False
        self._notify()

    async def end(self, reason: str = "run_ended") -> None:
        """Every group that is left is withheld for `reason`."""
        self._tick()
        self._ledger.end(reason)
        self._files = GroupFiles()
        self._notify()

    async def snapshot(self) -> bytes:
        """The ledger's part of a checkpoint: msgpack, with the names of spool files, without samples."""
        self._tick()
        return bytes(msgpack.packb(pack(self._ledger.state, self._spec.lineage)))

    async def status(self) -> dict[str, Any]:
        """The counts, and what an operator wants to know: why a batch is not there, who works, how old the
        oldest lease is."""
        now_s = self._tick()
        granted_s = (lease.deadline_s - self._leases.lease_s for lease in self._ledger.state.leased.values())
        oldest_s = min(granted_s, default=None)
        return {
            **asdict(self._ledger.counts()),
            "withheld_by_reason": self._ledger.withheld_by_reason(),
            "committed_step": self._ledger.state.version,
            "capacity": self._ledger.capacity(),
            "leasing": not self._ledger.paused,
            "oldest_lease_age_s": None if oldest_s is None else now_s - oldest_s,
            "waiting_reason": self._ledger.waiting_reason(),
            "straggler_wait_s": self._straggler_wait_s,
            "workers_seen_s_ago": {
                worker: now_s - seen_s for worker, seen_s in sorted(self._workers_seen_s.items())
            },
        }

    # ---- inside

    def _tick(self, worker: str | None = None) -> float:
        """The time, after overdue leases were given back. `worker` has just given a sign of life."""
        now_s = self._clock()
        if worker is not None and worker not in self._workers_gone:
            self._workers_seen_s[worker] = now_s
        self._log.check()
        self._ledger.state.check_law()
        if self._leases.expire(now_s):
            self._notify()
        return now_s

    def _notify(self) -> None:
        self._changes.notify()
        self._queue.change()


if TYPE_CHECKING:

    def _implements(actor: LedgerActor) -> LedgerCalls:
        return actor
