"""The ledger's actor: the rules behind a door that many wait at, and their durable files.

    rollout workers                        LedgerActor                                     coordinator lease
    ─────────waits for capacity────► Ledger (rules) ◄──waits for P scored groups──── take report ──► scored:
    handle kept         │ log line, synced, then                        commit ─► step trained, version out
    renew, wait_version ◄──────────────────┴─ _notify() after every change ───────────────► evaluate

Every method runs on the actor's one event loop and changes state only between two awaits, so no lock is
needed. A waiting call consumes nothing. After a change the waiting leases are served as far as there is
capacity, and wake nobody else (`LeaseQueue`); `take` and `evaluate` look again. Who waits for a version is
told after a publication, one after the other (`NewestVersion`). Time passes in `_tick`, which expires
leases and which every call, and every look while anybody waits for a group, begins with; an error in it is
that caller's.

Object references arrive and leave inside tuples and are never dereferenced: no sample passes through this
process. Each worker has two calls pending here, so the actor needs `CALLS` as its max_concurrency (Ray's
default is 1,000).
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack

from dynalign.actors import logs
from dynalign.actors.ledger.lease_queue import LeaseQueue
from dynalign.actors.ledger.ledger_spec import Answer, Batch, LedgerSpec, ledger_settings
from dynalign.actors.ledger.newest_version import NewestVersion
from dynalign.actors.ledger.protocol import Known
from dynalign.actors.packed_calls import PackedCalls
from dynalign.configs.errors import CheckpointError, DeadlineExceeded, LedgerError, StaleLineage
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationKey,
    EvaluationLease,
    EvaluationLeases,
    EvaluationResult,
    PoisonedItem,
)
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.restore import opening, restore
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.ledger.values import Break, Delivered, GroupKey, Lease, ReportOutcome, Reservation
from dynalign.rollout.prompts import PromptOrder
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import durable, layout, owner, spool
from dynalign.run_folder.layout import step_folder

CALLS = 100_000
"""Calls that may be pending in the actor at one time; one more would keep reports out until others end."""
_LOOK_S = 1.0  # the longest that a lease's expiry goes unnoticed while somebody waits


class LedgerActor(PackedCalls):
    """The actor. `start` once, then everything else. `wait_s` and `deadline_s` are seconds from the call."""

    def __init__(self, spec: LedgerSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._folder = Path(spec.run_folder)
        self._spool = self._folder / layout.SPOOL
        self._evaluations = EvaluationLeases(
            spec.run.deadlines.lease_s, spec.lineage, spec.run.supervision.poison_attempts
        )
        self._changed, self._started = asyncio.Event(), asyncio.Event()
        self._queue = LeaseQueue(self._lease, self._tick, _LOOK_S)
        self._newest = NewestVersion()
        self._leasing, self._straggler_wait_s = True, 0.0
        self._handles: dict[int, object] = {}
        self._trained_files, self._leased_at_s = dict[str, int](), dict[GroupKey, float]()
        self._workers_seen_s: dict[str, float] = {}
        self._workers_gone: set[str] = set()  # no two workers have one name

    async def start(self) -> None:
        """Rebuilds the ledger from checkpoint, log and spool. Raises CheckpointError, RecordError or
        StaleLineage if they do not fit."""
        spec = self._spec
        logs.configure(
            spec.run, "ledger", lambda: self._newest.version.label if self._newest.version else "-"
        )
        owner.check(self._folder, spec.lineage)
        snapshot = self._read_snapshot() if spec.step else None
        self._log = LedgerLog(self._folder / layout.LEDGER_LOG)
        spooled = await asyncio.to_thread(spool.scan, self._spool)
        await asyncio.to_thread(durable.remove_leftovers, self._spool, time.time())
        order = PromptOrder(spec.prompts_count, spec.run.seed)
        self._ledger = restore(
            ledger_settings(spec.run), order, snapshot, self._log.lines, spooled, spec.lineage
        )
        self._log.append(opening(self._ledger, snapshot, self._log.lines), durable=True)
        gc.freeze()  # what is there by now stays; walking through it stops every call for 60 ms
        self._started.set()

    async def started(self) -> None:
        """Answers once the ledger can be asked; the supervision has a deadline for `start`."""
        await self._started.wait()

    # ---- workers

    async def lease(
        self, worker: str, max_groups: int, wait_s: float, busy: bool = False, known: Known = None
    ) -> Answer:
        """Up to `max_groups` leases, held-out ones first; none when there is nothing to lease for `wait_s`.
        busy: the worker holds work, of whatever lease; then it gets no suspect. A worker that is gone gets
        nothing: its last call may outlive it here."""
        self._tick(worker)
        leases = await self._queue.lease(
            worker, max_groups, 0.0 if worker in self._workers_gone else wait_s, busy
        )
        return self._answer(worker, (), leases, known)

    def _lease(self, worker: str, max_groups: int, busy: bool) -> list[Lease | EvaluationLease] | None:
        """None: there is nothing for anybody. A suspect is alone among leases of both kinds."""
        if worker in self._workers_gone:
            return []
        named = self._newest.above(
            (self._spec.lineage, self._ledger.state.version - 1)
        )  # what a lease names can be pulled
        if named is None or not (self._evaluations.pending or (self._leasing and self._ledger.capacity())):
            return None
        now_s, leases = self._clock(), list[Lease | EvaluationLease]()
        if not self._ledger.holds_suspect(worker):
            leases += self._evaluations.lease(worker, max_groups, now_s, busy or self._ledger.holds(worker))
        if self._leasing and not self._evaluations.holds_suspect(worker):
            trained = self._ledger.lease(worker, max_groups - len(leases), now_s, busy or bool(leases))
            self._leased_at_s |= dict.fromkeys((lease.key for lease in trained), now_s)
            leases += trained
        return leases

    async def renew(
        self, worker: str, keys: Sequence[GroupKey | EvaluationKey]
    ) -> list[GroupKey | EvaluationKey]:
        """A worker's sign of life for the leases it holds; returns those that are no longer its own, whose
        work can be dropped."""
        now_s = self._tick(worker)
        lost = self._ledger.renew(worker, [key for key in keys if isinstance(key, GroupKey)], now_s)
        return [
            *lost,
            *self._evaluations.renew(worker, [key for key in keys if isinstance(key, EvaluationKey)], now_s),
        ]

    async def report(
        self,
        worker: str,
        delivered: Sequence[Delivered],
        max_groups: int = 0,
        busy: bool = False,
        known: Known = None,
    ) -> Answer:
        """Groups whose files are in the spool, one after the other, and then up to `max_groups` leases, as
        far as they are there at once. busy: as for `lease`, without these groups."""
        self._tick(worker)
        outcomes = [self._ledger.report(group) for group, _ in delivered]
        scored = [each for each, outcome in zip(delivered, outcomes, strict=True) if outcome == "scored"]
        self._log.append(*(self._ledger.state.scored[group.group_id] for group, _ in scored), durable=False)
        self._handles |= {group.group_id: handle for group, handle in scored if handle is not None}
        self._notify()
        leases = await self._queue.lease(worker, max_groups, 0.0, busy) if max_groups else []
        return self._answer(worker, outcomes, leases, known)

    def _answer(
        self,
        worker: str,
        outcomes: Sequence[ReportOutcome],
        leases: Sequence[Lease | EvaluationLease],
        known: Known,
    ) -> Answer:
        return Answer(
            tuple(outcomes), tuple(leases), None if known is None else self._newest.tell(worker, known)
        )

    async def withhold(self, worker: str, key: GroupKey, reason: str) -> ReportOutcome:
        """A leased group that the worker cannot make, with the reason."""
        self._tick(worker)
        outcome = self._ledger.withhold(*key, reason)
        self._notify()
        return outcome

    async def report_evaluation(self, worker: str, result: EvaluationResult) -> str:
        self._tick(worker)
        outcome = self._evaluations.report(result)
        self._notify()
        return outcome

    async def wait_version(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest published version once it is above `known`, a (lineage, step); None if there is none
        within `wait_s`, or another answer has brought it."""
        self._tick()
        return await self._newest.wait(worker, known, wait_s)

    async def worker_left(self, worker: str, died: bool) -> list[Break | PoisonedItem]:
        """A worker that is gone: its leases go back to the head of the queue at once. died: it did not
        leave by itself, so what it held may have broken it; returns what is withheld as poison for that."""
        poisoned: list[Break | PoisonedItem] = []
        if died:
            breaks = self._ledger.worker_died(worker)
            self._log.append(*breaks, durable=True)  # remembered over a restart, a resume, a rollback
            poisoned = [*(each for each in breaks if each.poison), *self._evaluations.worker_died(worker)]
        else:
            self._ledger.worker_left(worker)
            self._evaluations.worker_left(worker)
        self._workers_seen_s.pop(worker, None)
        self._workers_gone.add(worker)
        self._queue.leave(worker)
        self._newest.leave(worker)
        self._notify()
        return poisoned

    # ---- the coordinator

    async def take(self, step: int, deadline_s: float) -> Batch:
        """The batch of `step`; the same step gets the same batch. Raises NoSignal by the rules,
        DeadlineExceeded with what it waited for."""
        until_s = self._clock() + deadline_s
        while True:
            now_s = self._tick()
            reservation = self._ledger.take(step)
            if reservation is not None:
                return self._batch(reservation)
            straggling = self._ledger.straggler() is not None
            await self._change_before(until_s, deadline_s, self._ledger.waiting_reason)
            if straggling:
                self._straggler_wait_s += self._clock() - now_s

    async def take_present(self, step: int, deadline_s: float) -> Batch | None:
        """What is there for `step`, once no leased group would become too old by being left behind; None if
        nothing is there and nothing is leased."""
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            reservation = self._ledger.take_present(step)
            if reservation is not None:
                return self._batch(reservation)
            if not self._ledger.state.scored and not self._ledger.state.leased:
                return None
            await self._change_before(until_s, deadline_s, self._ledger.waiting_reason)

    async def refill(self) -> None:
        """Lets the present step replace another max_refill * P groups without signal."""
        self._ledger.refill()
        self._notify()

    async def requeue_missing(self, step: int, group_ids: Sequence[int]) -> None:
        """Groups of the batch whose bytes are nowhere are generated again; `take` then fills the batch up."""
        for group_id in self._ledger.requeue_missing(step, group_ids):
            self._handles.pop(group_id, None)
        self._notify()

    async def commit(self, step: int, version: WeightVersion, group_ids: Sequence[int] | None = None) -> None:
        """The batch's groups become trained; once the log's line is on disk, `version` can be pulled and
        leases name it. Repeatable. Until then a slow disk holds up leases alone. group_ids: see
        `plan_commit`. Raises StaleLineage when another driver has taken the run over: its history must not
        get a line of this one.
        """
        owner.check(self._folder, self._spec.lineage)
        planned = self._ledger.plan_commit(step, group_ids)
        if planned is not None:
            scored = self._ledger.state.scored
            files = {
                scored[group_id].group.name: step for group_id in planned.group_ids if group_id in scored
            }
            self._log.append(planned, durable=False)
            self._ledger.apply(planned)
            self._trained_files |= files
            for group_id in planned.group_ids:
                self._handles.pop(group_id, None)
        await asyncio.to_thread(self._log.sync)  # a repeated commit too: the first one may have failed here
        self._publish(version)

    async def offer(self, version: WeightVersion) -> bool:
        """The version that the run starts or goes on from can be pulled, if it is that of the last
        committed step; else False. Until a version is there, nothing is leased."""
        if version.step != self._ledger.state.version:
            return False
        self._publish(version)
        return True

    def _publish(self, version: WeightVersion) -> None:
        if (
            version.lineage != self._spec.lineage
        ):  # of a coordinator that does not know yet that it was replaced
            raise StaleLineage(version.lineage, self._spec.lineage)
        if version.step != self._ledger.state.version:
            raise LedgerError(
                f"version {version.step} is not that of the last committed step, {self._ledger.state.version}"
            )
        self._newest.publish(version)
        self._notify()

    async def forget(self, step: int, listed: Sequence[str]) -> list[str]:
        """The checkpoint of `step` is whole: those spool files of `listed` that only an older cut could
        need, and that can go.

        Not earlier: a group that was scored when a checkpoint was written and trained after it is scored
        again when the run goes back to that checkpoint. What stays is what is scored, leased (its file may
        be there before its report), or trained after `step`.
        """
        owner.check(self._folder, self._spec.lineage)
        self._trained_files = {
            name: trained for name, trained in self._trained_files.items() if trained > step
        }
        state = self._ledger.state
        live = {scored.group.name for scored in state.scored.values()} | set(self._trained_files)
        live |= {
            layout.group_file(lease.group_id, lease.lineage, lease.attempt) for lease in state.leased.values()
        }
        return [name for name in listed if name not in live]

    async def evaluate(
        self, evaluation: int, items: Sequence[EvaluationItem], deadline_s: float
    ) -> tuple[EvaluationResult, ...]:
        """Held-out items, answered by the policy of step `evaluation` ahead of all training groups; the
        results in their order. Asked again, it goes on with what is there. Raises DeadlineExceeded with
        what is missing."""
        self._evaluations.open(evaluation, items)
        self._notify()
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            results = self._evaluations.results(evaluation)
            if results is not None:
                return results
            await self._change_before(until_s, deadline_s, self._evaluations.waiting_reason)

    async def pause(self) -> None:
        """No training group is leased until `resume`; what is leased goes on, and an evaluation to its
        end."""
        self._leasing = False

    async def resume(self) -> None:
        self._leasing = True
        self._notify()

    async def end(self, reason: str = "run_ended") -> None:
        """What is left is withheld for `reason`."""
        self._ledger.end(reason)
        self._handles.clear()
        self._notify()

    async def snapshot(self) -> bytes:
        """The ledger's part of a checkpoint: msgpack, a list of names, no samples."""
        return bytes(msgpack.packb(pack(self._ledger.state, self._spec.lineage)))

    async def status(self) -> dict[str, Any]:
        """The law's terms and what an operator asks: why a batch is not there, who works, how old the
        oldest lease is."""
        now_s = self._tick()
        self._leased_at_s = {
            lease.key: self._leased_at_s[lease.key] for lease in self._ledger.state.leased.values()
        }
        ages_s = [now_s - leased_s for leased_s in self._leased_at_s.values()]
        return {
            **asdict(self._ledger.counts()),
            "withheld_by_reason": self._ledger.withheld_by_reason(),
            "committed_step": self._ledger.state.version,
            "capacity": self._ledger.capacity(),
            "leasing": self._leasing,
            "oldest_lease_age_s": max(ages_s, default=None),
            "waiting_reason": self._ledger.waiting_reason(),
            "straggler_wait_s": self._straggler_wait_s,
            "workers_seen_s_ago": {
                worker: now_s - seen_s for worker, seen_s in sorted(self._workers_seen_s.items())
            },
        }

    # ---- inside

    def _read_snapshot(self) -> dict[str, Any]:
        path = step_folder(self._folder / layout.CHECKPOINTS, self._spec.step) / layout.LEDGER_STATE
        try:
            snapshot: dict[str, Any] = msgpack.unpackb(path.read_bytes())
        except (OSError, ValueError, msgpack.UnpackException) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if not isinstance(snapshot, dict) or snapshot.get("version") != self._spec.step:
            raise CheckpointError(f"{path} is not the ledger of step {self._spec.step}")
        return snapshot

    def _batch(self, reservation: Reservation) -> Batch:
        handles = tuple(self._handles.get(group_id) for group_id in reservation.group_ids)
        return Batch(reservation.step, reservation.version, reservation.groups, handles)

    def _tick(self, worker: str | None = None) -> float:
        """Now, with every lease that ended before it expired, and `worker` seen alive."""
        now_s = self._clock()
        if worker is not None and worker not in self._workers_gone:
            self._workers_seen_s[worker] = now_s
        expired = [*self._ledger.expire(now_s), *self._evaluations.expire(now_s)]
        if expired:
            self._notify()
        return now_s

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._queue.change()

    async def _change(self, until_s: float) -> None:
        with suppress(TimeoutError):  # nothing changed: the caller looks at the clock
            async with asyncio.timeout(max(0.0, min(until_s - self._clock(), _LOOK_S))):
                await self._changed.wait()

    async def _change_before(self, until_s: float, deadline_s: float, waiting_for: Callable[[], str]) -> None:
        if self._clock() >= until_s:
            raise DeadlineExceeded(waiting_for(), deadline_s)
        await self._change(until_s)
