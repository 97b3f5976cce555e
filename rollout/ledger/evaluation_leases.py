"""Leases of held-out prompts. They have a counter of their own and never enter the ledger's capacity or its conservation law.

One evaluation is open at a time, named by the committed step whose policy it measures; workers hold at least that version. It
lives in memory only: a ledger that restarts forgets it, and the coordinator opens it again.

A held-out prompt can be poison, too (`suspects`). A suspect waits for a worker with nothing in hand; there will be one, because
training waits for the evaluation, and the workers run out of groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.quarantine import Quarantine


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One held-out prompt, answered with the system prompt (`prompted`) or without it."""

    prompt_index: int
    prompted: bool


class EvaluationKey(NamedTuple):
    """Names one attempt at one item of one evaluation."""

    evaluation: int
    item: int
    attempt: int


@dataclass(frozen=True, slots=True)
class EvaluationLease:
    """One item to answer and score. `item` is its index in the evaluation. `lineage`, `version`: the least version the worker must hold.
    `deadline_s` is on the ledger's clock."""

    kind: Literal["eval"]
    evaluation: int
    item: int
    prompt_index: int
    prompted: bool
    attempt: int
    lineage: int
    version: int
    deadline_s: float
    worker: str

    @property
    def key(self) -> EvaluationKey:
        return EvaluationKey(self.evaluation, self.item, self.attempt)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A worker's report about one lease. score: 0..5, None if the verdict could not be read. truncated: the completion was cut."""

    evaluation: int
    item: int
    attempt: int
    score: float | None
    completion_tokens: int
    completion: str
    truncated: bool

    @property
    def key(self) -> EvaluationKey:
        return EvaluationKey(self.evaluation, self.item, self.attempt)


@dataclass(frozen=True, slots=True)
class PoisonedItem:
    """A held-out prompt that broke poison_attempts workers: its item counts as answered with nothing, without a score."""

    prompt_index: int
    workers: tuple[str, ...]


class EvaluationLeases:
    """The open evaluation, in one lineage. Times are seconds on the caller's clock; a lease lasts `lease_s` from its last renewal."""

    def __init__(self, lease_s: float, lineage: int, poison_attempts: int = 3) -> None:
        self.lease_s, self.lineage = lease_s, lineage
        self.suspects = Quarantine(poison_attempts, {})
        self.evaluation: int | None = None
        self._items: tuple[EvaluationItem, ...] = ()
        self._pending: list[int] = []
        self._leased: dict[int, EvaluationLease] = {}
        self._results: dict[int, EvaluationResult] = {}
        self._attempts: list[int] = []

    def open(self, evaluation: int, items: Sequence[EvaluationItem]) -> None:
        """Takes the place of the evaluation before it, whose leases are void. Opening the same one again changes nothing."""
        if evaluation == self.evaluation:
            if self._items != tuple(items):
                raise LedgerError(f"evaluation {evaluation} is open with other items")
            return
        self.evaluation, self._items = evaluation, tuple(items)
        self._pending, self._attempts = list(range(len(items))), [0] * len(items)
        self._leased, self._results = {}, {}

    def lease(self, worker: str, max_items: int, now_s: float, busy: bool = False) -> list[EvaluationLease]:
        """Up to `max_items` leases, a suspect only alone. busy: the worker holds work of another kind."""
        leases: list[EvaluationLease] = []
        while len(leases) < max_items and (index := self._next(worker, busy)) is not None:
            leases.append(self._lease_one(index, worker, now_s))
        return leases

    @property
    def pending(self) -> int:
        """Items that wait for a worker."""
        return len(self._pending)

    def _next(self, worker: str, busy: bool) -> int | None:
        if self.holds_suspect(worker):
            return None
        alone = not busy and all(lease.worker != worker for lease in self._leased.values())
        return next(
            (i for i in self._pending if alone or self._items[i].prompt_index not in self.suspects), None
        )

    def _lease_one(self, index: int, worker: str, now_s: float) -> EvaluationLease:
        assert self.evaluation is not None  # without one nothing is pending
        self._pending.remove(index)
        self._attempts[index] += 1
        item, key = self._items[index], EvaluationKey(self.evaluation, index, self._attempts[index])
        until_s, version = now_s + self.lease_s, (self.lineage, self.evaluation)
        lease = EvaluationLease(
            "eval", *key[:2], item.prompt_index, item.prompted, key.attempt, *version, until_s, worker
        )
        self._leased[index] = lease
        return lease

    def holds_suspect(self, worker: str) -> bool:
        """Whether the worker tests a suspect, and is to get nothing else of any kind."""
        return any(
            lease.worker == worker and lease.prompt_index in self.suspects for lease in self._leased.values()
        )

    def renew(self, worker: str, keys: Iterable[EvaluationKey], now_s: float) -> list[EvaluationKey]:
        """Extends the worker's leases; returns the keys that are no longer its own."""
        lost: list[EvaluationKey] = []
        for key in keys:
            lease = self._leased.get(key.item)
            if lease is not None and lease.key == key and lease.worker == worker:
                self._leased[key.item] = replace(lease, deadline_s=now_s + self.lease_s)
            else:
                lost.append(key)
        return lost

    def report(self, result: EvaluationResult) -> Literal["scored", "late", "repeated"]:
        known, lease = self._results.get(result.item), self._leased.get(result.item)
        if known is not None and known.key == result.key:
            return "repeated"
        if lease is None or lease.key != result.key:
            return "late"
        self.suspects.clear(lease.prompt_index)
        del self._leased[result.item]
        self._results[result.item] = result
        return "scored"

    def expire(self, now_s: float) -> list[EvaluationKey]:
        """Requeues every item whose lease has passed its deadline."""
        return self._requeue([lease for lease in self._leased.values() if lease.deadline_s <= now_s])

    def worker_left(self, worker: str) -> list[EvaluationKey]:
        """Requeues every item that the worker held."""
        return self._requeue([lease for lease in self._leased.values() if lease.worker == worker])

    def worker_died(self, worker: str) -> tuple[PoisonedItem, ...]:
        """Requeues every item that the worker held as a suspect; returns those that are given up as poison."""
        held = [lease for lease in self._leased.values() if lease.worker == worker]
        self.suspects.accuse(worker, (lease.prompt_index for lease in held))
        poisoned = [lease for lease in held if self.suspects.is_poison(lease.prompt_index)]
        for lease in poisoned:
            del self._leased[lease.item]
            self._results[lease.item] = EvaluationResult(*lease.key, None, 0, "", truncated=False)
        self._requeue([lease for lease in held if lease not in poisoned])
        return tuple(
            PoisonedItem(lease.prompt_index, self.suspects.workers(lease.prompt_index)) for lease in poisoned
        )

    def results(self, evaluation: int) -> tuple[EvaluationResult, ...] | None:
        """All results in the order of the items; None while some are missing. Raises LedgerError for one that is not open."""
        if evaluation != self.evaluation:
            raise LedgerError(f"evaluation {evaluation} is not open")
        if len(self._results) < len(self._items):
            return None
        return tuple(self._results[index] for index in range(len(self._items)))

    def waiting_reason(self) -> str:
        """What `results` waits for, as a sentence."""
        return (
            f"evaluation {self.evaluation}: {len(self._results)} of {len(self._items)} items scored, "
            f"{len(self._leased)} leased, {len(self._pending)} pending"
        )

    def _requeue(self, leases: Iterable[EvaluationLease]) -> list[EvaluationKey]:
        keys = [lease.key for lease in leases]
        for key in keys:
            del self._leased[key.item]
        self._pending = sorted([*self._pending, *(key.item for key in keys)])
        return keys
