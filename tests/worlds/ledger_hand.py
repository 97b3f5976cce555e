"""Short calls for hand-written tests of the ledger: two groups a step, max_staleness 1, four steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.values import Commit, Lease, LedgerSettings, ScoredGroup
from dynalign.run_folder.layout import group_file

PROMPTS = 5
TWO_PER_STEP = LedgerSettings(
    prompts_per_step=2,
    steps=4,
    max_staleness=1,
    max_in_flight=8,
    max_refill=1.0,
    lease_s=10.0,
    max_attempts=2,
)


@dataclass(frozen=True)
class Drawn:
    index: int
    epoch: int


class Order:
    """Draw number n is prompt n mod 5."""

    def at(self, draw: int) -> Drawn:
        return Drawn(draw % PROMPTS, draw // PROMPTS)


def scored_group(lease: Lease, version_min: int, version_max: int, reason: str | None = None) -> ScoredGroup:
    name = group_file(lease.group_id, lease.lineage, lease.attempt)
    return ScoredGroup(*lease.key, name, 1, name, version_min, version_max, 0.5, 0.1, reason)


def ledger_of(settings: LedgerSettings = TWO_PER_STEP) -> Ledger:
    return Ledger(settings, Order(), lineage=1)


def lease(ledger: Ledger, groups: int, worker: str = "worker-0", now_s: float = 0.0) -> list[Lease]:
    return ledger.lease(worker, groups, now_s)


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
