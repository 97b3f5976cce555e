"""Short calls for hand-written tests of the ledger: two groups a step, max_staleness 1, four steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.values import (
    Break,
    Commit,
    Lease,
    LedgerSettings,
    PromptId,
    ScoredGroup,
)
from dynalign.rollout.prompts import OrderChange
from dynalign.run_folder.layout import group_file
from dynalign.run_folder.spool import SpoolEntry

PROMPTS = 5
TWO_PER_STEP = LedgerSettings(
    prompts_per_step=2,
    steps=4,
    max_staleness=1,
    max_refill=1.0,
    lease_s=10.0,
)


@dataclass(frozen=True)
class Drawn:
    index: int
    epoch: int


class Order:
    """Draw number n is prompt n mod 5."""

    def at(self, draw: int) -> Drawn:
        return Drawn(draw % PROMPTS, draw // PROMPTS)

    def changed(self, change: OrderChange) -> "Order":
        raise ValueError(f"no prompt of this order can be changed: {change}")


def scored_group(lease: Lease, version_min: int, version_max: int, reason: str | None = None) -> ScoredGroup:
    name = group_file(lease.group_id, lease.lineage, lease.attempt)
    entry = SpoolEntry(name, 1, name)
    return ScoredGroup(lease.group_id, lease.attempt, lease.lineage, entry, version_min, version_max, reason)


def ledger_of(settings: LedgerSettings = TWO_PER_STEP) -> Ledger:
    return Ledger(settings, Order(), lineage=1)


def lease(ledger: Ledger, groups: int, worker: str = "worker-0", now_s: float = 0.0) -> list[Lease]:
    return ledger.leases.lease(worker, groups, now_s)


def expire(ledger: Ledger, now_s: float) -> list[int]:
    """The ids of the groups whose leases expired."""
    return [key.group_id for key in ledger.leases.expire(now_s)]


def worker_left(ledger: Ledger, worker: str = "worker-0") -> list[int]:
    """The ids of the groups that it gave back."""
    return [key.group_id for key in ledger.leases.worker_left(worker)]


def worker_died(ledger: Ledger, worker: str = "worker-0") -> tuple[Break, ...]:
    """What the log keeps of its death."""
    return tuple(ledger.leases.worker_died(worker))


def broken_by(ledger: Ledger, prompt_index: int) -> tuple[str, ...]:
    """The workers that a training prompt broke."""
    return ledger.leases.quarantine.workers(PromptId("train", prompt_index))


def quarantined(ledger: Ledger) -> set[int]:
    """The training prompts under quarantine."""
    known = PROMPTS + sum(change.added for change in ledger.state.prompt_changes)
    return {index for index in range(known) if PromptId("train", index) in ledger.leases.quarantine}


def score(ledger: Ledger, *leases: Lease) -> None:
    for each in leases:
        assert ledger.report(scored_group(each, each.version, each.version)) == "scored"


def dull(ledger: Ledger, *leases: Lease) -> None:
    for each in leases:
        assert ledger.report(scored_group(each, each.version, each.version, "low_signal")) == "withheld"


def take(ledger: Ledger, step: int) -> tuple[int, ...] | None:
    reservation = ledger.take(step)
    return None if reservation is None else reservation.group_ids


def commit_step(ledger: Ledger, step: int, group_ids: Sequence[int] | None = None) -> Commit | None:
    """Commits as the ledger's actor does, without its files. None if it was committed before."""
    planned = ledger.plan_commit(step, group_ids)
    if planned is not None:
        ledger.apply(planned)
    return planned


def train(ledger: Ledger, step: int) -> None:
    score(ledger, *lease(ledger, ledger.settings.prompts_per_step))
    assert ledger.take(step) is not None
    commit_step(ledger, step)
