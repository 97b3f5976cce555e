"""The workers' side of the training groups: which group is leased next, and what a report or a lost lease
means.

    draws ──lease──► leased ──report──► scored, or withheld with a reason
              ▲        ├── expired, or its worker left: pending again; withheld after FAILED_ATTEMPTS
              └pending◄┴── its worker died: pending again under quarantine; withheld as poison at last

A lease is (group, attempt, lineage); a report whose key is not the current one changes nothing. Who holds
which lease is in `lease_table.py`; the coordinator's side is in `rules.py`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from math import ceil

from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.state import LedgerState
from dynalign.rollout.ledger.values import (
    ATTEMPTS_PER_LEDGER,
    FAILED_ATTEMPTS,
    POISON,
    REPLACED,
    Break,
    Counts,
    DrawOrder,
    GroupKey,
    Lease,
    LedgerSettings,
    PromptId,
    ReportOutcome,
    Reservation,
    Scored,
    ScoredGroup,
)


class LeaseRules:
    """The groups of one run, in one lineage, as workers meet them: the `LeaseKind` "train".

    Times are seconds on the caller's clock.

    attempts_before: attempt numbers that an earlier ledger of the same lineage may have granted; new ones
    start above, so that a lease of that ledger is never taken for one of this. leases: the table to lease
    from; None for one of its own.
    """

    def __init__(
        self,
        settings: LedgerSettings,
        order: DrawOrder,
        lineage: int,
        state: LedgerState | None = None,
        attempts_before: int = 0,
        leases: LeaseTable | None = None,
    ) -> None:
        self.settings = settings
        self.lineage = lineage
        self.state = state or LedgerState()
        self.leases = leases or LeaseTable(settings.lease_s, Quarantine(settings.poison_attempts, {}))
        self.leases.add("train", self)
        self.paused = False
        """Whether no group is leased until this is False again."""
        self.reservation: Reservation | None = None
        self.order = order
        self.attempts_before = attempts_before
        self.draws_before = 0
        """Draws that the log knows, those of abandoned lineages included. They keep their prompts."""
        self._attempts: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        """Group id to its attempts that expired or lost their bytes."""
        self._accepted: dict[int, GroupKey] = {i: scored.group.key for i, scored in self.state.scored.items()}
        self._settled: set[int] = set()
        """Groups that the last commit trained or withheld."""
        self._withheld_since_commit: dict[int, str] = {}
        self._unreadable_batches = 0
        """Batches since the last commit of which the learner could not read every group."""
        self._without_signal: Counter[str] = Counter()
        """Reason to groups withheld for it since the last reservation, of those that are replaced: what the
        next step's refill has used up."""
        self.state.check_law()

    # ---- as a kind of lease

    def waiting(self) -> Iterable[int]:
        """Group ids: requeued groups first, the oldest draw ahead, then the next new draw."""
        if self.paused or self.capacity() == 0:
            return ()
        return chain(self.state.pending, (self.state.issued,))

    def prompt_of(self, waiting: int) -> PromptId:
        return PromptId("train", self.order.at(waiting).index)

    def grant(self, waiting: int, worker: str, deadline_s: float) -> Lease:
        """The next attempt at group `waiting`."""
        if waiting == self.state.issued:
            self.state.issued += 1
        else:
            self.state.pending.remove(waiting)
        draw = self.order.at(waiting)
        attempt = self._attempts.get(waiting, self.attempts_before) + 1
        self._attempts[waiting] = attempt
        version = self.state.version
        lease = Lease(
            "train", waiting, draw.index, draw.epoch, attempt, self.lineage, version, deadline_s, worker
        )
        self.state.hold(lease)
        self.state.check_law()
        return lease

    def give_back(self, leases: Sequence[Lease], expired: bool) -> None:
        """The groups are pending again, or withheld when all their attempts are used up."""
        self._requeue([lease.group_id for lease in leases], failed=expired)

    def broken(self, lease: Lease, workers: tuple[str, ...], poison: bool) -> Break:
        """The line for the log."""
        if poison:
            self._drop(lease.group_id)
            self._withhold(lease.group_id, POISON)
        return Break(lease.group_id, lease.attempt, lease.lineage, lease.prompt_index, workers, poison)

    # ---- reports

    def report(self, scored: ScoredGroup) -> ReportOutcome:
        """A finished group. Tokens older than the lease's version make it `late` too, since the age bound
        counts from the lease."""
        key = scored.key
        if self._accepted.get(scored.group_id) == key:
            return "repeated"
        lease = self.leases.get(key)
        if lease is None or scored.version_min < lease.version:
            self.state.late += 1
            return "late"
        if scored.withheld_reason is not None:
            return self.withhold(key, scored.withheld_reason)
        self.leases.survived(lease)
        self._accepted[scored.group_id] = key
        self.state.keep(Scored(scored, lease.version))
        self.state.check_law()
        return "scored"

    def withhold(self, key: GroupKey, reason: str) -> ReportOutcome:
        """A leased group that is not to be trained, with the reason; another draw takes its place."""
        group_id = key.group_id
        if self._accepted.get(group_id) == key:
            return "repeated"
        lease = self.leases.get(key)
        if lease is None:
            self.state.late += 1
            return "late"
        self.leases.survived(lease)
        self._accepted[group_id] = key
        self.state.drop(group_id)
        self._withhold(group_id, reason)
        if reason in REPLACED:
            self._without_signal[reason] += 1
        self.state.check_law()
        return "withheld"

    # ---- inside

    def _requeue(self, group_ids: Iterable[int], failed: bool = False) -> list[int]:
        """Leased or scored groups go back to pending, or are withheld when all their attempts are used up."""
        state = self.state
        requeued = []
        for group_id in group_ids:
            self._drop(group_id)
            self._failures[group_id] = self._failures.get(group_id, 0) + failed
            used = self._attempts.get(group_id, self.attempts_before) - self.attempts_before
            if self._failures[group_id] >= FAILED_ATTEMPTS or used >= ATTEMPTS_PER_LEDGER:
                self._withhold(group_id, "attempts_exhausted")
            else:
                requeued.append(group_id)
        state.pending = sorted([*state.pending, *requeued])
        state.requeued += len(requeued)
        state.check_law()
        return requeued

    def _drop(self, group_id: int) -> None:
        """The group is neither leased nor scored any more."""
        lease = self.state.leased.get(group_id)
        if lease is not None:
            self.leases.release(lease.key)
        self.state.drop(group_id)

    def _withhold(self, group_id: int, reason: str) -> None:
        self.state.withhold(group_id, reason)
        self._withheld_since_commit[group_id] = reason
        self._attempts.pop(group_id, None)
        self._failures.pop(group_id, None)

    # ---- what it knows

    def capacity(self) -> int:
        """Groups that may be leased now: min((max_staleness + 1) * P, remaining groups of the run) - leased -
        scored.

        A reserved batch counts as P scored groups even if it is short. A group without signal beyond the
        refill takes up capacity too: it is not replaced.
        """
        state = self.state
        settings = self.settings
        if state.ended:
            return 0
        per_step = settings.prompts_per_step
        held = len(state.leased) + len(state.scored)
        if self.reservation is not None:
            held += per_step - len(self.reservation.groups)
        admitted = (settings.max_staleness + 1) * per_step - self._unreplaced()
        remaining = (settings.steps - state.version) * per_step
        return max(0, min(admitted, remaining) - held)

    def counts(self) -> Counts:
        return self.state.counts()

    def withheld_by_reason(self) -> dict[str, int]:
        return self.state.withheld_by_reason()

    def _unreplaced(self) -> int:
        replaced = self.settings.max_refill * self.settings.prompts_per_step
        return max(0, ceil(self._without_signal.total() - replaced))
