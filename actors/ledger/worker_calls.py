"""The workers' side of the ledger's actor: leases, reports, versions, and the actor's start.

`ledger_actor.py` has the rest.
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dynalign.actors import logs
from dynalign.actors.ledger.changes import LOOK_S, Changes
from dynalign.actors.ledger.group_files import GroupFiles
from dynalign.actors.ledger.lease_queue import LeaseQueue
from dynalign.actors.ledger.ledger_spec import LedgerAnswer, LedgerSpec
from dynalign.actors.ledger.newest_version import NewestVersion
from dynalign.actors.ledger.opening import open_ledger
from dynalign.actors.ledger.prompt_intake import PromptIntake
from dynalign.actors.ledger.protocol import Known
from dynalign.actors.ledger.withheld_file import WithheldFile
from dynalign.actors.packed_calls import PackedCalls
from dynalign.rollout.ledger.beside_budget import BesideBudget
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationLeases,
    EvaluationResult,
    PoisonedItem,
)
from dynalign.rollout.ledger.kinds import AnyKey, AnyLease
from dynalign.rollout.ledger.probe_leases import ProbeLeases, ProbeResult
from dynalign.rollout.ledger.values import Break, Delivered, GroupKey, ReportOutcome
from dynalign.rollout.weights.version import WeightVersion

COMPACT_BYTES = 1 << 20
"""Size of the log, in bytes, below which it is not compacted.

Each time it doubles after that, the next checkpoint compacts it, which takes about 0.1 s per MB.
"""


class WorkerCalls(PackedCalls):
    """What workers and supervision call.

    Call `start` once, then everything else. `wait_s` and `deadline_s` are seconds from the call.

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
        self._withheld_scores: tuple[float, ...] = ()
        """Lowest and highest score of the candidates that were withheld since the last commit."""
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
        self._ledger, self._log, answered = await open_ledger(spec, self._fsync)
        prompts = (spec.prompts_count, spec.prompts_hash)
        self._intake = PromptIntake(self._folder, *prompts, self._ledger, self._log)
        self._intake.take()
        self._withheld = WithheldFile(self._folder, self._ledger)
        await asyncio.to_thread(self._withheld.open)
        self._leases = self._ledger.leases
        self._budget = BesideBudget()
        run = spec.run
        most_tokens = run.prompts.max_tokens + run.rollout.max_completion_tokens
        mine = (self._leases, spec.lineage, self._budget)
        attempts = (run.supervision.poison_attempts, self._ledger.attempts_before)
        self._evaluations = EvaluationLeases(*mine, most_tokens, *attempts, answered)
        self._probes = ProbeLeases(*mine, *attempts)
        gc.freeze()  # a collection that walks through all objects of the libraries stops every call for 60 ms
        self._started.set()

    async def started(self) -> int:
        """The ledger's lineage, once it can be called."""
        await self._started.wait()
        return self._spec.lineage

    # ---- workers

    async def lease(
        self,
        worker: str,
        max_groups: int,
        wait_s: float,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> LedgerAnswer:
        """Up to `max_groups` leases, held-out ones first; none when there is nothing to lease for `wait_s`.
        One more, of an evaluation or the capability probe, may be beside them, which takes no slot of a
        group.

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
        now_s = self._clock()
        leases = self._leases.lease(worker, max_groups, now_s, holds_other_leases)
        return [*leases, *self._leases.lease_beside(worker, now_s)]

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
    ) -> LedgerAnswer:
        """Takes groups whose files are in the spool, then grants up to `max_groups` leases without waiting.
        holds_other_leases: as for `lease`, these groups not counted."""
        self._tick(worker)
        outcomes = [self._ledger.report(each.group) for each in delivered]
        self._budget.earn(sum(each.completion_tokens for each in delivered))
        for each, outcome in zip(delivered, outcomes, strict=True):
            if outcome == "withheld" and each.withheld is not None:
                self._withheld.told(worker, each)
                scores = [score for score in each.withheld.scores_G if score is not None]
                if scores := [*self._withheld_scores, *scores]:
                    self._withheld_scores = (min(scores), max(scores))
        scored = [each for each, outcome in zip(delivered, outcomes, strict=True) if outcome == "scored"]
        kept = [self._ledger.state.scored[each.group.group_id] for each in scored]
        self._log.append(*kept, durable=False)
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
    ) -> LedgerAnswer:
        version = None if known is None else self._newest.tell(worker, known)
        return LedgerAnswer(tuple(outcomes), tuple(self._intake.told(leases)), version)

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
        if outcome == "scored":
            self._log.append(result, durable=False)
        self._notify()
        return outcome

    async def report_probe(self, worker: str, result: ProbeResult) -> str:
        """Takes the answer to a lease of the capability probe; returns the same."""
        self._tick(worker)
        outcome = self._probes.report(result)
        self._notify()
        return outcome

    async def wait_version(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        """The newest published version once it is above `known`, a (lineage, step); None if there is none
        within `wait_s`, or if another answer has brought it."""
        self._tick()
        return await self._newest.wait(worker, known, wait_s)

    async def worker_left(self, worker: str, died: bool) -> list[Break | PoisonedItem]:
        """A worker is gone: what it held waits for another lease at once. died: it did not leave by itself,
        so a prompt that it held may have broken it. Returns what is withheld as poison for that.

        The supervision also calls it while the ledger restores itself; it then waits for that.
        """
        await self._started.wait()
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
