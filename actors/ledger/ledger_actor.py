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
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgpack

from dynalign.actors.ledger.group_files import GroupFiles
from dynalign.actors.ledger.ledger_spec import Batch
from dynalign.actors.ledger.ledger_status import LedgerStatus, status_of
from dynalign.actors.ledger.opening import ADDED
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.actors.ledger.worker_calls import WorkerCalls
from dynalign.configs.errors import LedgerError, StaleLineage
from dynalign.endpoint.base import Question
from dynalign.rollout.added_prompts import contents
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationResult,
)
from dynalign.rollout.ledger.probe_leases import ProbeAnswers
from dynalign.rollout.ledger.restore import compacted
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import owner

CALLS = 100_000
"""Calls that may be pending in the actor at one time.

With one more, reports would wait until other calls end.
"""


class LedgerActor(WorkerCalls):
    """The actor. `deadline_s` are seconds from the call."""

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
            self._withheld.add(planned.withheld)
            reserves = (self._evaluations.reserve_tokens(), self._probes.reserve_tokens())
            self._budget.committed(max(reserves))
            self._withheld_scores = ()
        # Repeated commits sync too: the first one may have failed here.
        await asyncio.to_thread(self._log.sync)
        self._log.check()
        await self._withheld.write()
        self._intake.take()
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
    ) -> tuple[EvaluationResult, ...] | None:
        """Has held-out items answered; the results in their order. Repeated, it goes on with the results that
        are there.

        deadline_s: to wait until all are there, ahead of all training groups and so by the policy of step
        `evaluation`, with DeadlineExceeded and what is missing after that; 0: not to wait. They are then
        asked beside the groups, of that policy and the next ones, and None says that some are missing.
        """
        self._evaluations.open(evaluation, items, beside=deadline_s <= 0.0)
        self._notify()
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            results = self._evaluations.results(evaluation)
            if results is not None or deadline_s <= 0.0:
                return results
            await self._changes.wait(until_s, deadline_s, self._evaluations.waiting_reason)

    async def probe(self, probe: int, questions: Sequence[Question], deadline_s: float) -> ProbeAnswers:
        """Has the policy of step `probe` answer questions, or with deadline_s = 0 that one and the next ones;
        what there is of the answers. Otherwise as `evaluate`."""
        self._probes.open(probe, questions, beside=deadline_s <= 0.0)
        self._notify()
        until_s = self._clock() + deadline_s
        while True:
            self._tick()
            answers = self._probes.answers(probe)
            if answers.missing == 0 or deadline_s <= 0.0:
                return answers
            await self._changes.wait(until_s, deadline_s, self._probes.waiting_reason)

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
        self._withheld.add(self._ledger.state.withheld.items())
        self._notify()
        await self._withheld.write()

    async def snapshot(self) -> bytes:
        """The ledger's part of a checkpoint: msgpack, with the names of spool files, without samples."""
        self._tick()
        state = pack(self._ledger.state, self._spec.lineage)
        if changes := self._ledger.state.prompt_changes:
            state[ADDED] = contents(self._folder, [change.content_hash for change in changes])
        return bytes(msgpack.packb(state))

    async def status(self) -> LedgerStatus:
        """The counts, and what an operator wants to know: why a batch is not there, who works, how old the
        oldest lease is."""
        now_s = self._tick()
        return status_of(
            self._ledger,
            now_s,
            self._straggler_wait_s,
            self._workers_seen_s,
            self._withheld_scores,
            self._probes.account.tokens,
            self._evaluations.account.tokens,
            self._evaluations.evaluation,
        )


if TYPE_CHECKING:

    def _implements(actor: LedgerActor) -> LedgerCalls:
        return actor
