"""What the ledger answers to an operator."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dynalign.rollout.ledger.rules import Ledger


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """The ledger at one moment. The first nine fields are those of `Counts`, which says what each counts.

    LedgerStatus(
        issued=40, pending=0, leased=6, scored=2, trained=32, withheld=0, requeued=1, late=0, rolled_back=0,
        withheld_by_reason={}, committed_step=4, capacity=0, leasing=True, oldest_lease_age_s=12.5,
        waiting_reason="2 of 8 groups scored; 6 leased to rollout-0, 0 pending, room for 0 more",
        straggler_wait_s=0.0, workers_seen_s_ago={"rollout-0": 0.4},
    )
    """

    issued: int
    """See `Counts`, as for the next eight."""
    pending: int
    leased: int
    scored: int
    trained: int
    withheld: int
    requeued: int
    late: int
    rolled_back: int
    withheld_by_reason: Mapping[str, int]
    """Reason to withheld groups; the reasons are sorted."""
    committed_step: int
    """The last committed step."""
    capacity: int
    """Groups that may be leased now."""
    leasing: bool
    """False while the run is paused."""
    oldest_lease_age_s: float | None
    """Seconds since the oldest current training lease was granted; None if there is none."""
    waiting_reason: str
    """What the next batch waits for, as a sentence."""
    straggler_wait_s: float
    """Seconds that full batches have waited for a straggler, in total."""
    workers_seen_s_ago: Mapping[str, float]
    """Worker to the seconds since its last call; the names are sorted."""
    withheld_scores: tuple[float, ...] = ()
    """Lowest and highest score, in points, of the candidates that were withheld since the last commit; empty
    where none had a score, or where the ledger was restarted since."""
    probe_tokens: int = 0
    """Tokens that answers to the capability probe have read and written beside groups since the ledger was
    opened."""
    heldout_tokens: int = 0
    """The same of held-out answers."""
    evaluation: int | None = None
    """The newest held-out evaluation that is known, open or answered: the step after which it was opened."""


def status_of(
    ledger: Ledger,
    now_s: float,
    straggler_wait_s: float,
    workers_seen_s: Mapping[str, float],
    withheld_scores: tuple[float, ...],
    probe_tokens: int,
    heldout_tokens: int,
    evaluation: int | None,
) -> LedgerStatus:
    """workers_seen_s: worker to the time of its last call, on the clock of `now_s`. The last four: as in
    `LedgerStatus`."""
    granted_s = (lease.deadline_s - ledger.leases.lease_s for lease in ledger.state.leased.values())
    oldest_s = min(granted_s, default=None)
    return LedgerStatus(
        **asdict(ledger.counts()),
        withheld_by_reason=ledger.withheld_by_reason(),
        committed_step=ledger.state.version,
        capacity=ledger.capacity(),
        leasing=not ledger.paused,
        oldest_lease_age_s=None if oldest_s is None else now_s - oldest_s,
        waiting_reason=ledger.waiting_reason(),
        straggler_wait_s=straggler_wait_s,
        workers_seen_s_ago={worker: now_s - seen_s for worker, seen_s in sorted(workers_seen_s.items())},
        withheld_scores=withheld_scores,
        probe_tokens=probe_tokens,
        heldout_tokens=heldout_tokens,
        evaluation=evaluation,
    )
