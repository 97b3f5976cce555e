"""The ledger's rules: which group is leased, scored, taken, trained or withheld.

A state machine with no clock, no I/O.

    draws ──lease──► leased ──report──► scored ──take──► reserved (counts as scored) ──commit──► trained
              ▲        │ │                 │                │
              └pending◄┘ └► withheld       └───► pending ◄──┘ (bytes are missing)
             (its end)     (reason)

After every transition issued = pending + leased + scored + trained + withheld, or LedgerError is raised.
Exactly once: a group becomes scored only by a report with the current key, and trained only by the commit of
one step. Age: admission (`capacity`) and order (`take`) together keep every outstanding group meetable, see
`age_bound.py`. `leases.py` has the transitions up to `scored`, this file the coordinator's side.
"""

from collections.abc import Iterable, Sequence

from dynalign.configs.errors import LedgerError, NoSignal, UnreadableGroups
from dynalign.rollout.ledger.age_bound import first_unmeetable, meetable
from dynalign.rollout.ledger.leases import LeaseRules
from dynalign.rollout.ledger.values import UNREADABLE, Commit, Lease, PromptChange, Reservation

SHOWN_WORKERS = 8
"""Workers that a message names; more are counted instead."""

UNREADABLE_BATCHES = 10
"""Batches in a row that the learner may fail to read in full before the run stops."""


class Ledger(LeaseRules):
    """The groups of one run, in one lineage: the workers' side and the coordinator's."""

    def take(self, step: int) -> Reservation | None:
        """Reserves the P scored groups that are due first for `step`, the one after the last committed.

        None if the batch is not there yet, see `waiting_reason`. A younger group overtakes an older one only
        while every group left behind can still be met. The same step gives the same reservation. Raises
        NoSignal when fewer than P groups are scored and more were withheld without signal than max_refill * P
        replace; LedgerError for another step.
        """
        self._check_next(step)
        if self.reservation is None:
            present = len(self.state.scored)
            wanted = self.settings.prompts_per_step
            if present < wanted and self._unreplaced() > 0:
                reasons = tuple(sorted(self._without_signal.items()))
                raise NoSignal(step, present, wanted, self._without_signal.total(), reasons)
            if present >= wanted:
                self._reserve(step)
        return self.reservation

    def take_present(self, step: int) -> Reservation | None:
        """Reserves the scored groups for `step`, up to P of them.

        None if there is none, or if a leased group would become too old if left behind. Groups without signal
        beyond the refill are not replaced, so the leased ones run out. Raises LedgerError for a step that is
        not the next.
        """
        self._check_next(step)
        if self.reservation is None and self.state.scored:
            self._reserve(step)
        return self.reservation

    def refill(self) -> None:
        """Lets the present step replace another max_refill * P groups without signal."""
        self._without_signal.clear()

    def requeue_missing(self, step: int, group_ids: Iterable[int]) -> list[int]:
        """Groups of the reserved batch whose bytes are lost go back to pending; returns their ids.

        The other groups count as scored again, and the next `take` fills the batch up. Raises
        UnreadableGroups at the UNREADABLE_BATCHES-th batch in a row that the learner could not read in full.
        """
        missing = self._unreadable(step, group_ids)
        return self._requeue(missing, failed=True)

    def withhold_unreadable(self, step: int, group_ids: Iterable[int]) -> list[int]:
        """Groups of the reserved batch whose files are whole, but hold nothing that can be trained on, are
        withheld as UNREADABLE; returns their ids. Otherwise as `requeue_missing`."""
        unreadable = self._unreadable(step, group_ids)
        for group_id in unreadable:
            self._drop(group_id)
            self._withhold(group_id, UNREADABLE)
        self.state.check_law()
        return unreadable

    def plan_commit(self, step: int, group_ids: Sequence[int] | None = None) -> Commit | None:
        """What a commit of `step` changes, for the log and for `apply`; None when that step is committed
        already.

        group_ids: the groups that the learner trained; None for those of the reservation. They count whatever
        state the ledger has them in, since a ledger that was restarted after the learner's step has lost the
        reservation. Raises LedgerError for a step out of turn, and for groups that were trained before.
        """
        ids = tuple(group_ids) if group_ids is not None else None
        if step == self.state.version:
            if ids is not None and sorted(ids) != sorted(self.state.last_group_ids):
                raise LedgerError(
                    f"step {step} was committed with groups {self.state.last_group_ids}, not {ids}"
                )
            return None
        self._check_next(step)
        if ids is None:
            if self.reservation is None:
                raise LedgerError(f"commit of step {step}: no batch is reserved")
            ids = self.reservation.group_ids
        again = self.state.trained_of(ids)
        if again or not ids or len(set(ids)) < len(ids):
            raise LedgerError(
                f"commit of step {step}: groups {ids} are none, not distinct, or trained before: {again}"
            )
        trained = set(ids)
        withheld = tuple((i, reason) for i, reason in self._withheld_since_commit.items() if i not in trained)
        return Commit(step, self.lineage, ids, withheld)

    def apply(self, commit: Commit) -> None:
        """The groups of a planned commit become trained.

        Groups left behind that can no longer be met are generated again.
        """
        state = self.state
        disputed = self.reservation is None or set(self.reservation.group_ids) != set(commit.group_ids)
        unseen = range(state.issued, max(state.issued, max(commit.group_ids) + 1))
        state.issued += len(unseen)
        trained = set(commit.group_ids)
        state.pending = [i for i in [*state.pending, *unseen] if i not in trained]
        for group_id in trained:
            self._drop(group_id)
            state.release(group_id)
            self._attempts.pop(group_id, None)
            self._failures.pop(group_id, None)
        state.trained += len(trained)
        state.version = commit.step
        state.last_group_ids = commit.group_ids
        self.reservation = None
        self._unreadable_batches = 0
        # A worker repeats a report at once or never, and the keys of a whole run would fill the memory.
        for group_id in self._settled:
            self._accepted.pop(group_id, None)
        self._settled = trained | self._withheld_since_commit.keys()
        self._withheld_since_commit.clear()
        if disputed:
            self._requeue_unmeetable()
        self.state.check_law()

    def end(self, reason: str = "run_ended") -> None:
        """Every group that is left is withheld for `reason`; nothing is leased or taken any more."""
        state = self.state
        for group_id in [*state.pending, *state.leased, *state.scored]:
            self._drop(group_id)
            self._withhold(group_id, reason)
        state.pending = []
        state.ended = True
        self.reservation = None
        self.state.check_law()

    # ---- prompts that come to a run

    def plan_prompts(self, content_hash: str, added: int, dropped: Iterable[int]) -> PromptChange | None:
        """The change to log and to apply when prompts are added and others are not drawn any more; None if
        these were taken before.

        Groups that were issued keep their prompts. Raises ValueError for prompts that cannot be dropped, or
        if none would be left.
        """
        changes = self.state.prompt_changes
        if content_hash in {change.content_hash for change in changes}:
            return None
        last = changes[-1].first_draw if changes else 0
        first_draw = max(self.state.issued, self.draws_before, last)
        where = (self.lineage, self.state.version)
        change = PromptChange(*where, content_hash, first_draw, added, tuple(sorted(set(dropped))))
        self.order.changed(change.of_order)
        return change

    def apply_prompts(self, change: PromptChange) -> None:
        """New groups are drawn from the prompts of a planned change."""
        self.order = self.order.changed(change.of_order)
        self.state.prompt_changes = (*self.state.prompt_changes, change)

    # ---- what it waits for

    def straggler(self) -> Lease | None:
        """The leased group that a full batch waits for, because it would become too old if left behind; None
        if there is none."""
        if self.reservation is not None or len(self.state.scored) < self.settings.prompts_per_step:
            return None
        due = self._blocked_due()
        if due is None:
            return None
        late = [
            lease
            for lease in self.state.leased.values()
            if lease.version + self.settings.max_staleness <= due
        ]
        return min(late, key=lambda lease: (lease.version, lease.group_id))

    def waiting_reason(self) -> str:
        """What the next `take` waits for, as a sentence."""
        state = self.state
        wanted = self.settings.prompts_per_step
        if state.ended:
            return "nothing: the run has ended"
        if self.reservation is not None:
            return f"nothing: step {self.reservation.step} is reserved"
        there = f"{len(state.scored)} of {wanted} groups scored"
        lease = self.straggler()
        if lease is not None:
            due = lease.version + self.settings.max_staleness
            return (
                f"straggler group {lease.group_id} leased to {lease.worker} (attempt {lease.attempt}, "
                f"due at version {due}); {there}"
            )
        names = sorted({lease.worker for lease in state.leased.values()})
        workers = ", ".join(names) if len(names) <= SHOWN_WORKERS else f"{len(names)} workers"
        workers = workers or "no worker"
        return (
            f"{there}; {len(state.leased)} leased to {workers}, {len(state.pending)} pending, "
            f"room for {self.capacity()} more"
        )

    # ---- inside

    def _unreadable(self, step: int, group_ids: Iterable[int]) -> list[int]:
        """Those of the reserved batch, which is given up for them."""
        self._check_next(step)
        wanted = set(group_ids)
        reserved = self.reservation.group_ids if self.reservation else ()
        found = [group_id for group_id in reserved if group_id in wanted]
        if found:
            self.reservation = None
            self._unreadable_batches += 1
        if self._unreadable_batches >= UNREADABLE_BATCHES:
            raise UnreadableGroups(step, self._unreadable_batches, tuple(found))
        return found

    def _blocked_due(self) -> int | None:
        """The first due version that could not be met if the next batch left now; None if it may leave."""
        per_step = self.settings.prompts_per_step
        return first_unmeetable(
            self.state.left_behind(per_step, self.settings.max_staleness), self.state.version + 1, per_step
        )

    def _reserve(self, step: int) -> None:
        if self._blocked_due() is not None:
            return
        batch = self.state.earliest(self.settings.prompts_per_step)
        version = self.state.version
        old = [s.group.group_id for s in batch if version - s.group.version_min > self.settings.max_staleness]
        if old:
            raise LedgerError(
                f"groups {old} are older than {self.settings.max_staleness} versions at version {version}"
            )
        self.reservation = Reservation(step, version, tuple(scored.group for scored in batch))
        self._without_signal.clear()

    def _requeue_unmeetable(self) -> None:
        outstanding = self.state.outstanding(self.settings.max_staleness)
        kept = meetable(outstanding, self.state.version, self.settings.prompts_per_step)
        self._requeue([group_id for _, group_id in outstanding if group_id not in kept])

    def _check_next(self, step: int) -> None:
        if self.state.ended or step != self.state.version + 1 or step > self.settings.steps:
            raise LedgerError(
                f"step {step} is out of turn: "
                f"{self.state.version} of {self.settings.steps} steps are committed"
                + (", the run has ended" if self.state.ended else "")
            )
