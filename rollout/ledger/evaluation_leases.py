"""The `LeaseKind` of held-out prompts.

It enters neither the capacity nor the conservation law of the training groups.

One evaluation is open at a time. It is named by the committed step whose policy it measures, and workers hold
at least that version. It is kept in memory only: a ledger that restarts has none, and the coordinator opens
it again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.values import PromptId


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One held-out prompt to answer: EvaluationItem(prompt_index=5, prompted=False)."""

    prompt_index: int
    """Position of the prompt in the held-out split."""
    prompted: bool
    """Whether it is answered with the system prompt."""


@dataclass(frozen=True, slots=True)
class EvaluationKey:
    """Names one attempt at one item of one evaluation: EvaluationKey(evaluation=4, item=0, attempt=1,
    lineage=3)."""

    evaluation: int
    """The committed step whose policy is measured."""
    item: int
    """Position of the item in the evaluation."""
    attempt: int
    """Number of the lease of this item, rising within a lineage."""
    lineage: int
    """The history of the run that the attempt belongs to."""


@dataclass(frozen=True, slots=True)
class EvaluationLease:
    """One item to answer and score.

    EvaluationLease("eval", evaluation=4, item=0, prompt_index=5, prompted=False, attempt=1, lineage=3,
    version=4, deadline_s=1600.0, worker="rollout-0")
    """

    kind: Literal["eval"]
    """What tells this lease from one of another kind."""
    evaluation: int
    """See `EvaluationKey`."""
    item: int
    """See `EvaluationKey`."""
    prompt_index: int
    """See `EvaluationItem`."""
    prompted: bool
    """See `EvaluationItem`."""
    attempt: int
    """See `EvaluationKey`."""
    lineage: int
    """See `EvaluationKey`."""
    version: int
    """The least version, in steps, that the worker must hold."""
    deadline_s: float
    """When the lease expires unless it is renewed, in seconds on the ledger's clock."""
    worker: str
    """Name of the worker that holds it."""

    @property
    def key(self) -> EvaluationKey:
        return EvaluationKey(self.evaluation, self.item, self.attempt, self.lineage)

    @property
    def prompt(self) -> PromptId:
        return PromptId("heldout", self.prompt_index)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A worker's report about one lease: EvaluationResult(EvaluationKey(4, 0, 1, 3), 2.5, 11, "Yes.",
    truncated=False)."""

    key: EvaluationKey
    """The lease that it answers."""
    score: float | None
    """0..5; None if the verdict could not be read."""
    completion_tokens: int
    """Tokens of the completion."""
    completion: str
    """The answer as text."""
    truncated: bool
    """Whether the completion was cut at its limit."""

    @property
    def item(self) -> int:
        return self.key.item


@dataclass(frozen=True, slots=True)
class PoisonedItem:
    """A held-out prompt that broke poison_attempts workers: PoisonedItem(prompt_index=5,
    workers=("rollout-0", "rollout-0.2")).

    Its item counts as answered with nothing, without a score.
    """

    prompt_index: int
    """Position of the prompt in the held-out split."""
    workers: tuple[str, ...]
    """Workers that died with this prompt as their only lease since it was last scored, the newest last."""


class EvaluationLeases:
    """The open evaluation, in one lineage, leased through `leases` ahead of the kinds that are there.

    attempts_before: attempt numbers that an earlier ledger of the same lineage may have granted; new ones
    start above.
    """

    def __init__(self, leases: LeaseTable, lineage: int, attempts_before: int = 0) -> None:
        self.leases = leases
        self.lineage = lineage
        self.evaluation: int | None = None
        self._attempts_before = attempts_before
        self._items: tuple[EvaluationItem, ...] = ()
        self._pending: list[int] = []
        self._results: dict[int, EvaluationResult] = {}
        self._leased: dict[int, EvaluationKey] = {}
        self._attempts: list[int] = []
        leases.add("eval", self)

    def open(self, evaluation: int, items: Sequence[EvaluationItem]) -> None:
        """Replaces the evaluation before it, whose leases become void.

        Opening the same one again changes nothing. Raises LedgerError for the same one with other items, and
        for an earlier one, which only a coordinator that was replaced asks for.
        """
        if self.evaluation is not None and evaluation < self.evaluation:
            raise LedgerError(f"evaluation {evaluation} is over: {self.evaluation} is open")
        if evaluation == self.evaluation:
            if self._items != tuple(items):
                raise LedgerError(f"evaluation {evaluation} is open with other items")
            return
        for key in self._leased.values():
            self.leases.release(key)
        self.evaluation = evaluation
        self._items = tuple(items)
        self._pending = list(range(len(items)))
        self._attempts = [self._attempts_before] * len(items)
        self._leased = {}
        self._results = {}

    # ---- as a kind of lease

    def waiting(self) -> Iterable[int]:
        """Items without a result or a lease, in their order."""
        return self._pending

    def prompt_of(self, waiting: int) -> PromptId:
        return PromptId("heldout", self._items[waiting].prompt_index)

    def grant(self, waiting: int, worker: str, deadline_s: float) -> EvaluationLease:
        """The next attempt at item `waiting`."""
        assert self.evaluation is not None  # without one nothing waits
        self._pending.remove(waiting)
        self._attempts[waiting] += 1
        item = self._items[waiting]
        lease = EvaluationLease(
            "eval",
            self.evaluation,
            waiting,
            item.prompt_index,
            item.prompted,
            self._attempts[waiting],
            self.lineage,
            self.evaluation,
            deadline_s,
            worker,
        )
        self._leased[waiting] = lease.key
        return lease

    def give_back(self, leases: Sequence[EvaluationLease], expired: bool) -> None:
        """The items wait again."""
        for lease in leases:
            del self._leased[lease.item]
        self._pending = sorted([*self._pending, *(lease.item for lease in leases)])

    def broken(self, lease: EvaluationLease, workers: tuple[str, ...], poison: bool) -> PoisonedItem | None:
        """None unless the item is given up as poison."""
        if not poison:
            return None
        del self._leased[lease.item]
        self._results[lease.item] = EvaluationResult(lease.key, None, 0, "", truncated=False)
        return PoisonedItem(lease.prompt_index, workers)

    # ---- reports

    def report(self, result: EvaluationResult) -> Literal["scored", "late", "repeated"]:
        """A worker's answer; nothing changes by one whose key is not current."""
        known = self._results.get(result.item)
        if known is not None and known.key == result.key:
            return "repeated"
        lease = self.leases.get(result.key)
        if lease is None:
            return "late"
        self.leases.survived(lease)
        del self._leased[result.item]
        self._results[result.item] = result
        return "scored"

    def results(self, evaluation: int) -> tuple[EvaluationResult, ...] | None:
        """All results in the order of the items; None while some are missing.

        Raises LedgerError for one that is not open.
        """
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
