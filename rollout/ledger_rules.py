"""The ledger's rules: which group is leased, scored, taken, trained or withheld. A state machine with no clock, no I/O.

    draws ──lease──► leased ──report──► scored ──take──► reserved (counts as scored) ──commit──► trained
              ▲        │ │                 │                │
              └pending◄┘ └► withheld       └───► pending ◄──┘ (bytes are missing)
           (expired, dead)  (reason)

After every transition issued = pending + leased + scored + trained + withheld, or LedgerError is raised. Exactly once: a
group leaves `leased` only by a report with the current key, and becomes trained only by the commit of one step. Age: admission
(`capacity`) and order (`take`) together keep every outstanding group meetable; see `age_bound`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil

from configs.errors import LedgerError, NoSignal
from rollout.age_bound import first_unmeetable, meetable
from rollout.ledger_state import LedgerState
from rollout.ledger_values import (
    LACKS_SIGNAL,
    Commit,
    Counts,
    DrawOrder,
    GroupKey,
    Lease,
    LedgerSettings,
    ReportOutcome,
    Reservation,
    Scored,
    ScoredGroup,
)


class Ledger:
    """The groups of one run, in one lineage. Times are seconds on the caller's clock.

    attempts_before: attempt numbers that an earlier ledger of the same lineage may have given to any group; new ones start
    above it, so that a lease of that ledger can never pass for one of this.
    """

    def __init__(
        self, settings: LedgerSettings, order: DrawOrder, lineage: int, state: LedgerState | None = None, attempts_before: int = 0
    ) -> None:
        self.settings = settings
        self.lineage = lineage
        self.state = state or LedgerState()
        self.reservation: Reservation | None = None
        self._order = order
        self._attempts_before = attempts_before
        self._attempts: dict[int, int] = {}
        self._accepted: dict[int, GroupKey] = {i: scored.group.key for i, scored in self.state.scored.items()}
        self._withheld_since_commit: dict[int, str] = {}
        self._without_signal = 0  # since the last reservation: what the refill of the next step has used up
        self._check_law()

    # ---- workers

    def lease(self, worker: str, max_groups: int, now_s: float) -> list[Lease]:
        """Up to `max_groups` leases while there is capacity: requeued groups first, the oldest draw at the head, then new draws."""
        leases: list[Lease] = []
        while len(leases) < max_groups and self.capacity() > 0:
            leases.append(self._lease_one(worker, now_s))
        self._check_law()
        return leases

    def _lease_one(self, worker: str, now_s: float) -> Lease:
        state = self.state
        group_id = state.pending[0] if state.pending else state.issued
        draw = self._order.at(group_id)
        if state.pending:
            state.pending.pop(0)
        else:
            state.issued += 1
        attempt = self._attempts.get(group_id, self._attempts_before) + 1
        self._attempts[group_id] = attempt
        deadline_s = now_s + self.settings.lease_s
        lease = Lease("train", group_id, draw.index, draw.epoch, attempt, self.lineage, state.version, deadline_s, worker)
        state.leased[group_id] = lease
        return lease

    def renew(self, worker: str, keys: Iterable[GroupKey], now_s: float) -> list[GroupKey]:
        """Extends the worker's leases by lease_s. Returns the keys that are no longer its own: their work can be dropped."""
        lost: list[GroupKey] = []
        for key in keys:
            lease = self.state.leased.get(key.group_id)
            if lease is not None and lease.key == key and lease.worker == worker:
                self.state.leased[key.group_id] = replace(lease, deadline_s=now_s + self.settings.lease_s)
            else:
                lost.append(key)
        return lost

    def report(self, scored: ScoredGroup) -> ReportOutcome:
        """A finished group. Tokens older than the lease's version make it `late` too: the age bound counts from the lease."""
        lease = self.state.leased.get(scored.group_id)
        if self._accepted.get(scored.group_id) == scored.key:
            return "repeated"
        if lease is None or lease.key != scored.key or scored.version_min < lease.version:
            self.state.late += 1
            return "late"
        if scored.withheld_reason is not None:
            return self.withhold(*scored.key, scored.withheld_reason)
        self._accepted[scored.group_id] = scored.key
        del self.state.leased[scored.group_id]
        self.state.scored[scored.group_id] = Scored(scored, lease.version)
        self._check_law()
        return "scored"

    def withhold(self, group_id: int, attempt: int, lineage: int, reason: str) -> ReportOutcome:
        """A leased group that is not to be trained, with the reason; another draw takes its place."""
        key = GroupKey(group_id, attempt, lineage)
        lease = self.state.leased.get(group_id)
        if self._accepted.get(group_id) == key:
            return "repeated"
        if lease is None or lease.key != key:
            self.state.late += 1
            return "late"
        self._accepted[group_id] = key
        del self.state.leased[group_id]
        self._withhold(group_id, reason)
        if reason in LACKS_SIGNAL:
            self._without_signal += 1
        self._check_law()
        return "withheld"

    def expire(self, now_s: float) -> list[int]:
        """Requeues every group whose lease has passed its deadline; returns their ids."""
        return self._requeue([i for i, lease in self.state.leased.items() if lease.deadline_s <= now_s])

    def worker_died(self, worker: str) -> list[int]:
        """Requeues every group that the worker held; returns their ids."""
        return self._requeue([i for i, lease in self.state.leased.items() if lease.worker == worker])

    def _requeue(self, group_ids: Iterable[int]) -> list[int]:
        """Leased or scored groups go back to pending, or are withheld when all their attempts are used up."""
        state, requeued = self.state, []
        for group_id in group_ids:
            state.leased.pop(group_id, None)
            state.scored.pop(group_id, None)
            used = self._attempts.get(group_id, self._attempts_before) - self._attempts_before
            if used >= self.settings.max_attempts:
                self._withhold(group_id, "attempts_exhausted")
            else:
                requeued.append(group_id)
        state.pending = sorted([*state.pending, *requeued])
        state.requeued += len(requeued)
        self._check_law()
        return requeued

    def _withhold(self, group_id: int, reason: str) -> None:
        self.state.withheld[group_id] = reason
        self._withheld_since_commit[group_id] = reason
        self._attempts.pop(group_id, None)

    # ---- the coordinator

    def take(self, step: int) -> Reservation | None:
        """Reserves the P earliest due scored groups for `step`, the one after the last committed; None: not yet, see `waiting_reason`.

        A younger group overtakes only while every group left behind can still be met. The same step gives the same reservation.
        Raises NoSignal when more groups without signal were withheld than max_refill * P replace and fewer than P are there.
        """
        self._check_next(step)
        if self.reservation is None:
            present, wanted = len(self.state.scored), self.settings.prompts_per_step
            if present < wanted and self._unreplaced() > 0:
                raise NoSignal(step, present, wanted, self._without_signal)
            if present >= wanted:
                self._reserve(step)
        return self.reservation

    def take_present(self, step: int) -> Reservation | None:
        """Reserves what is there for `step`: P groups or fewer, at least one. None: nothing is there, or a leased group would
        become too old if left behind. Groups without signal beyond the refill are not replaced, so the leased ones run out."""
        self._check_next(step)
        if self.reservation is None and self.state.scored:
            self._reserve(step)
        return self.reservation

    def refill(self) -> None:
        """Lets the present step replace another max_refill * P groups without signal: after a pause, or when nothing is there."""
        self._without_signal = 0

    def requeue_missing(self, step: int, group_ids: Iterable[int]) -> list[int]:
        """Groups of the reserved batch whose bytes are lost go back to pending; returns their ids. The rest is scored again
        and the next `take` fills the batch up."""
        self._check_next(step)
        reserved = self.reservation.group_ids if self.reservation else ()
        missing = [group_id for group_id in reserved if group_id in set(group_ids)]
        if missing:
            self.reservation = None
        return self._requeue(missing)

    def plan_commit(self, step: int, group_ids: Sequence[int] | None = None) -> Commit | None:
        """What `commit` with the same arguments will do, for the log; None when that step is committed already."""
        ids = tuple(group_ids) if group_ids is not None else None
        if step == self.state.version:
            if ids is not None and sorted(ids) != sorted(self.state.last_group_ids):
                raise LedgerError(f"step {step} was committed with groups {self.state.last_group_ids}, not {ids}")
            return None
        self._check_next(step)
        if ids is None:
            if self.reservation is None:
                raise LedgerError(f"commit of step {step}: no batch is reserved")
            ids = self.reservation.group_ids
        again = [group_id for group_id in ids if self.state.is_trained(group_id)]
        if again or not ids or len(set(ids)) < len(ids):
            raise LedgerError(f"commit of step {step}: groups {ids} are none, not distinct, or trained before: {again}")
        withheld = tuple((i, reason) for i, reason in self._withheld_since_commit.items() if i not in ids)
        return Commit(step, self.lineage, ids, withheld)

    def commit(self, step: int, group_ids: Sequence[int] | None = None) -> Commit | None:
        """The reserved groups become `trained`. None: the step was committed before, nothing changed.

        group_ids: what the learner says it trained. It decides, wherever the ledger has these groups: a ledger restarted after
        the learner's step has lost the reservation. Groups left behind that can no longer be met are then born anew.
        """
        commit = self.plan_commit(step, group_ids)
        if commit is None:
            return None
        state = self.state
        disputed = self.reservation is None or set(self.reservation.group_ids) != set(commit.group_ids)
        unseen = range(state.issued, max(state.issued, max(commit.group_ids) + 1))
        state.issued += len(unseen)
        trained = set(commit.group_ids)
        state.pending = [i for i in [*state.pending, *unseen] if i not in trained]
        for place in (state.leased, state.scored, state.withheld, self._attempts):
            for group_id in trained:
                place.pop(group_id, None)
        state.trained += len(trained)
        state.version, state.last_group_ids = step, commit.group_ids
        self.reservation = None
        self._withheld_since_commit.clear()
        if disputed:
            self._requeue_unmeetable()
        self._check_law()
        return commit

    def end(self, reason: str = "run_ended") -> None:
        """Everything that is left is withheld for `reason`; nothing is leased or taken any more."""
        state = self.state
        for group_id in [*state.pending, *state.leased, *state.scored]:
            self._withhold(group_id, reason)
        state.pending, state.leased, state.scored = [], {}, {}
        state.ended, self.reservation = True, None
        self._check_law()

    # ---- what it knows

    def capacity(self) -> int:
        """Groups that may be leased now: min(max_in_flight - leased, (max_staleness + 1) * P - leased - scored, remaining -
        leased - scored). A reserved batch counts as P scored groups even if it is short, and a group without signal that is
        beyond the refill keeps its place: it is not replaced."""
        state, settings = self.state, self.settings
        if state.ended:
            return 0
        per_step = settings.prompts_per_step
        held = len(state.leased) + len(state.scored)
        if self.reservation is not None:
            held += per_step - len(self.reservation.groups)
        admitted = (settings.max_staleness + 1) * per_step - self._unreplaced()
        remaining = (settings.steps - state.version) * per_step
        return max(0, min(settings.max_in_flight - len(state.leased), admitted - held, remaining - held))

    def counts(self) -> Counts:
        return self.state.counts()

    def withheld_by_reason(self) -> dict[str, int]:
        reasons = list(self.state.withheld.values())
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}

    def straggler(self) -> Lease | None:
        """The leased group that a full batch waits for because it would become too old if left behind; None if none does."""
        if self.reservation is not None or len(self.state.scored) < self.settings.prompts_per_step:
            return None
        due = self._blocked_due(self._earliest())
        if due is None:
            return None
        late = [lease for lease in self.state.leased.values() if lease.version + self.settings.max_staleness <= due]
        return min(late, key=lambda lease: (lease.version, lease.group_id))

    def waiting_reason(self) -> str:
        """What the next `take` waits for, as a sentence."""
        state, wanted = self.state, self.settings.prompts_per_step
        if state.ended:
            return "nothing: the run has ended"
        if self.reservation is not None:
            return f"nothing: step {self.reservation.step} is reserved"
        there = f"{len(state.scored)} of {wanted} groups scored"
        lease = self.straggler()
        if lease is not None:
            due = lease.version + self.settings.max_staleness
            return f"straggler group {lease.group_id} leased to {lease.worker} (attempt {lease.attempt}, due at version {due}); {there}"
        workers = ", ".join(sorted({lease.worker for lease in state.leased.values()})) or "no worker"
        return f"{there}; {len(state.leased)} leased to {workers}, {len(state.pending)} pending, room for {self.capacity()} more"

    # ---- inside

    def _earliest(self) -> list[Scored]:
        ordered = sorted(self.state.scored.values(), key=lambda scored: (scored.born, scored.group.group_id))
        return ordered[: self.settings.prompts_per_step]

    def _blocked_due(self, batch: Sequence[Scored]) -> int | None:
        """The first due version that could not be met if `batch` left now; None if it may leave."""
        taken = {scored.group.group_id for scored in batch}
        dues = [due for due, group_id in self._outstanding() if group_id not in taken]
        return first_unmeetable(dues, self.state.version + 1, self.settings.prompts_per_step)

    def _outstanding(self) -> list[tuple[int, int]]:
        """(due version, group id) of every leased and scored group."""
        staleness = self.settings.max_staleness
        leased = [(lease.version + staleness, i) for i, lease in self.state.leased.items()]
        return leased + [(scored.born + staleness, i) for i, scored in self.state.scored.items()]

    def _reserve(self, step: int) -> None:
        batch = self._earliest()
        if self._blocked_due(batch) is not None:
            return
        version = self.state.version
        old = [s.group.group_id for s in batch if version - s.group.version_min > self.settings.max_staleness]
        if old:
            raise LedgerError(f"groups {old} are older than {self.settings.max_staleness} versions at version {version}")
        self.reservation = Reservation(step, version, tuple(scored.group for scored in batch))
        self._without_signal = 0

    def _requeue_unmeetable(self) -> None:
        outstanding = self._outstanding()
        kept = meetable(outstanding, self.state.version, self.settings.prompts_per_step)
        self._requeue([group_id for _, group_id in outstanding if group_id not in kept])

    def _unreplaced(self) -> int:
        return max(0, ceil(self._without_signal - self.settings.max_refill * self.settings.prompts_per_step))

    def _check_next(self, step: int) -> None:
        if self.state.ended or step != self.state.version + 1 or step > self.settings.steps:
            raise LedgerError(
                f"step {step} is out of turn: {self.state.version} of {self.settings.steps} steps are committed"
                + (", the run has ended" if self.state.ended else "")
            )

    def _check_law(self) -> None:
        if not self.counts().lawful:
            raise LedgerError(f"the conservation law is broken: {self.counts()}")
