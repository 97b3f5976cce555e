"""The workers' side of the ledger's rules: who may lease what, and what becomes of a lease.

    draws ──lease──► leased ──report──► scored, or withheld with a reason
              ▲        ├── expired, or its worker left: pending again; withheld after max_attempts failures
              └pending◄┴── its worker died: pending again as a suspect; withheld as poison after poison_attempts deaths

A lease is (group, attempt, lineage); nothing changes by a report whose key is not the current one. `ledger_rules` has the rest.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from math import ceil, inf

from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.state import LedgerState
from dynalign.rollout.ledger.values import (
    ATTEMPTS_PER_LEDGER,
    LACKS_SIGNAL,
    POISON,
    Break,
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


class LeaseRules:
    """The groups of one run, in one lineage, as the workers meet them. Times are seconds on the caller's clock.

    attempts_before: attempt numbers that an earlier ledger of the same lineage may have given to any group; new ones start
    above it, so that a lease of that ledger can never pass for one of this. broke: see `Quarantine`.
    """

    def __init__(
        self,
        settings: LedgerSettings,
        order: DrawOrder,
        lineage: int,
        state: LedgerState | None = None,
        attempts_before: int = 0,
        broke: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        self.settings = settings
        self.lineage = lineage
        self.state = state or LedgerState()
        self.reservation: Reservation | None = None
        self._order = order
        self._attempts_before = attempts_before
        self._attempts: dict[int, int] = {}
        self._failures: dict[int, int] = {}  # attempts that expired or lost their bytes
        self.suspects = Quarantine(settings.poison_attempts, broke or {})
        self._accepted: dict[int, GroupKey] = {i: scored.group.key for i, scored in self.state.scored.items()}
        self._settled: set[int] = set()  # by the last commit, as trained or withheld
        self._withheld_since_commit: dict[int, str] = {}
        self._expiry_s = inf  # no lease ends before that
        self._without_signal = 0  # since the last reservation: what the refill of the next step has used up
        self.state.check_law()

    def lease(self, worker: str, max_groups: int, now_s: float, busy: bool = False) -> list[Lease]:
        """Up to `max_groups` leases while there is capacity: requeued groups first, the oldest draw at the head, then new draws;
        a suspect only alone, see `suspects`. busy: the worker holds work of another kind."""
        leases: list[Lease] = []
        while len(leases) < max_groups and (group_id := self._next(worker, busy)) is not None:
            leases.append(self._lease_one(group_id, worker, now_s))
        self.state.check_law()
        return leases

    def _next(self, worker: str, busy: bool) -> int | None:
        """The group that the worker may have now; None if there is no room or it has to run empty first."""
        if self.capacity() == 0 or self.holds_suspect(worker):
            return None
        waiting = chain(self.state.pending, (self.state.issued,))
        if not self.suspects or (not busy and not self.holds(worker)):
            return next(waiting)
        tested = any(lease.prompt_index in self.suspects for lease in self.state.leased.values())
        for group_id in waiting:
            if self._order.at(group_id).index not in self.suspects:
                return group_id
            if not tested:
                return None
        return None

    def _lease_one(self, group_id: int, worker: str, now_s: float) -> Lease:
        if group_id == self.state.issued:
            self.state.issued += 1
        else:
            self.state.pending.remove(group_id)
        draw = self._order.at(group_id)
        attempt = self._attempts.get(group_id, self._attempts_before) + 1
        self._attempts[group_id] = attempt
        deadline_s = now_s + self.settings.lease_s
        lease = Lease(
            "train",
            group_id,
            draw.index,
            draw.epoch,
            attempt,
            self.lineage,
            self.state.version,
            deadline_s,
            worker,
        )
        self._hold(lease)
        return lease

    def _hold(self, lease: Lease) -> None:
        self.state.hold(lease)
        self._expiry_s = min(self._expiry_s, lease.deadline_s)

    def holds(self, worker: str) -> bool:
        return bool(self.state.leases_of(worker))

    def holds_suspect(self, worker: str) -> bool:
        """Whether the worker tests a suspect, and is to get nothing else of any kind."""
        return bool(self.suspects) and any(
            lease.prompt_index in self.suspects for lease in self.state.leases_of(worker)
        )

    def renew(self, worker: str, keys: Iterable[GroupKey], now_s: float) -> list[GroupKey]:
        """Extends the worker's leases by lease_s. Returns the keys that are no longer its own: their work can be dropped."""
        lost: list[GroupKey] = []
        for key in keys:
            lease = self.state.leased.get(key.group_id)
            if lease is not None and lease.key == key and lease.worker == worker:
                self._hold(lease._replace(deadline_s=now_s + self.settings.lease_s))
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
        self.suspects.clear(lease.prompt_index)
        self._accepted[scored.group_id] = scored.key
        self.state.keep(Scored(scored, lease.version))
        self.state.check_law()
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
        self.suspects.clear(lease.prompt_index)
        self._accepted[group_id] = key
        self.state.drop(group_id)
        self._withhold(group_id, reason)
        if reason in LACKS_SIGNAL:
            self._without_signal += 1
        self.state.check_law()
        return "withheld"

    def expire(self, now_s: float) -> list[int]:
        """Requeues every group whose lease has passed its deadline; returns their ids. Most calls look at nothing: a renewal moves a
        lease's end away from the bound, and the bound follows when it is reached."""
        self.state.check_law()
        if now_s < self._expiry_s:
            return []
        requeued = self._requeue(
            [i for i, lease in self.state.leased.items() if lease.deadline_s <= now_s], failed=True
        )
        self._expiry_s = min((lease.deadline_s for lease in self.state.leased.values()), default=inf)
        return requeued

    def worker_left(self, worker: str) -> list[int]:
        """The worker drained, or was ended for a reason that no prompt has. Requeues what it held; returns the ids."""
        return self._requeue([lease.group_id for lease in self.state.leases_of(worker)])

    def worker_died(self, worker: str) -> tuple[Break, ...]:
        """Every group that the worker held is requeued as a suspect, or withheld as poison; one value for each, for the log."""
        held = self.state.leases_of(worker)
        self.suspects.accuse(worker, (lease.prompt_index for lease in held))
        breaks = tuple(
            Break(
                *lease.key,
                lease.prompt_index,
                self.suspects.workers(lease.prompt_index),
                self.suspects.is_poison(lease.prompt_index),
            )
            for lease in held
        )
        for each in breaks:
            if each.poison:
                self.state.drop(each.group_id)
                self._withhold(each.group_id, POISON)
        self._requeue([each.group_id for each in breaks if not each.poison])
        return breaks

    def _requeue(self, group_ids: Iterable[int], failed: bool = False) -> list[int]:
        """Leased or scored groups go back to pending, or are withheld when all their attempts are used up."""
        state, requeued = self.state, []
        for group_id in group_ids:
            state.drop(group_id)
            self._failures[group_id] = self._failures.get(group_id, 0) + failed
            used = self._attempts.get(group_id, self._attempts_before) - self._attempts_before
            if self._failures[group_id] >= self.settings.max_attempts or used >= ATTEMPTS_PER_LEDGER:
                self._withhold(group_id, "attempts_exhausted")
            else:
                requeued.append(group_id)
        state.pending = sorted([*state.pending, *requeued])
        state.requeued += len(requeued)
        state.check_law()
        return requeued

    def _withhold(self, group_id: int, reason: str) -> None:
        self.state.withhold(group_id, reason)
        self._withheld_since_commit[group_id] = reason
        self._attempts.pop(group_id, None)
        self._failures.pop(group_id, None)

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
        return self.state.withheld_by_reason()

    def _unreplaced(self) -> int:
        return max(0, ceil(self._without_signal - self.settings.max_refill * self.settings.prompts_per_step))
