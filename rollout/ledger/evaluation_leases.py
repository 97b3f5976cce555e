"""The `LeaseKind` of held-out prompts.

It enters neither the capacity nor the conservation law of the training groups.

One evaluation is open at a time. It is named by the committed step after which it was opened, and workers
hold at least that version. One that training waits for is leased ahead of everything, so that all its answers
are of that version. Another is leased *beside* the groups: to a worker that has no such lease, in no slot of
a training group, within `BesideBudget`; each answer says of which versions it is.

Answers are lines of the ledger's log. A ledger that restarts in the same lineage has those of the newest
evaluation again once the coordinator opens it; what has no answer is asked again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.beside_budget import BesideAccount, BesideBudget
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
    """The committed step after which it was opened."""
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
    version=4, deadline_s=1600.0, worker="rollout-0", beside=False)
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
    beside: bool
    """Whether it takes no slot of a training group."""

    @property
    def suspect(self) -> bool:
        return not self.beside

    @property
    def key(self) -> EvaluationKey:
        return EvaluationKey(self.evaluation, self.item, self.attempt, self.lineage)

    @property
    def prompt(self) -> PromptId:
        return PromptId("heldout", self.prompt_index)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A worker's report about one lease: EvaluationResult(EvaluationKey(4, 0, 1, 3), 2.5, 11, "Yes.",
    truncated=False, prompt_tokens=40, version_min=4, version_max=5)."""

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
    prompt_tokens: int
    """Tokens of the context that was answered."""
    version_min: int
    """Oldest version, in steps, of the completion's tokens, and of the verdict where the policy judges."""
    version_max: int
    """Newest version of them."""

    @property
    def item(self) -> int:
        return self.key.item

    @property
    def lineage(self) -> int:
        return self.key.lineage

    @property
    def tokens(self) -> int:
        """Tokens that were read and written. A judge's are left out: a training candidate's verdict takes as
        many, so they keep their share."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class PoisonedItem:
    """A held-out prompt that broke poison_attempts workers: PoisonedItem(prompt_index=5,
    workers=("rollout-0", "rollout-0.2")).

    Its item counts as answered with nothing, without a score.
    """

    prompt_index: int
    """Position of the prompt in the held-out split."""
    workers: tuple[str, ...]
    """Workers that died with this prompt as their only lease, or with it beside groups, since it was last
    scored, the newest last."""


class EvaluationLeases:
    """The open evaluation, in one lineage, leased through `leases` ahead of the kinds that are there.

    budget: for what is leased beside groups. most_tokens: that an answer can take, its context included.
    poison_attempts: workers in a row that may be lost with an item beside groups, before it is given up.
    attempts_before: attempt numbers that an earlier ledger of the same lineage may have granted; new ones
    start above. answered: results of this lineage, as the log has them.
    """

    def __init__(
        self,
        leases: LeaseTable,
        lineage: int,
        budget: BesideBudget,
        most_tokens: int,
        poison_attempts: int,
        attempts_before: int = 0,
        answered: Sequence[EvaluationResult] = (),
    ) -> None:
        self.leases = leases
        self.lineage = lineage
        self.account = BesideAccount(budget)
        self.evaluation: int | None = max((each.key.evaluation for each in answered), default=None)
        """The newest one that is known: the open one, or one of which the log has answers."""
        self._most_tokens = most_tokens
        self._poison_attempts = poison_attempts
        self._attempts_before = attempts_before
        self._items: tuple[EvaluationItem, ...] | None = None
        self._beside = False
        self._pending: list[int] = []
        self._results = {each.item: each for each in answered if each.key.evaluation == self.evaluation}
        self._leased: dict[int, tuple[EvaluationKey, int]] = {}
        """Item to its key and the tokens that are set aside for it."""
        self._attempts: list[int] = []
        self._lost: dict[EvaluationItem, tuple[str, ...]] = {}
        """Item to the workers that were lost with it, beside groups, since it was last answered."""
        leases.add_beside("eval", self)

    def open(self, evaluation: int, items: Sequence[EvaluationItem], beside: bool = False) -> None:
        """Replaces the evaluation before it, whose leases become void.

        Opening the same one again changes nothing, but that from the first time training waits for it, what
        is left is leased ahead: a coordinator that was replaced may still ask for it beside the groups, and
        where nobody trains any more nothing is earned there. Raises LedgerError for the same one with other
        items, and for an earlier one, which only a coordinator that was replaced asks for.
        """
        if self.evaluation is not None and evaluation < self.evaluation:
            raise LedgerError(f"evaluation {evaluation} is over: {self.evaluation} is open")
        if evaluation == self.evaluation and self._items is not None:
            if self._items != tuple(items):
                raise LedgerError(f"evaluation {evaluation} is open with other items")
            self._beside = self._beside and beside
            return
        for key, _ in self._leased.values():
            self.leases.release(key)
        if evaluation != self.evaluation:
            self._results = {}
        self.evaluation = evaluation
        self._items = tuple(items)
        self._beside = beside
        self._pending = [index for index in range(len(items)) if index not in self._results]
        self._attempts = [self._attempts_before] * len(items)
        self._leased = {}

    def reserve_tokens(self) -> int:
        """Tokens to set aside for the next item beside groups; 0 if none is to be asked so."""
        return self.account.reserve(self._most_tokens) if self._beside and self._pending else 0

    # ---- as a kind of lease

    def waiting(self) -> Iterable[int]:
        """Items without a result or a lease, in their order, of an evaluation that training waits for."""
        return () if self._beside else self._pending

    def waiting_beside(self) -> Iterable[int]:
        """The same of one that is leased beside groups."""
        return self._pending if self._beside else ()

    def affordable(self) -> bool:
        return self.account.affords(self.reserve_tokens())

    def prompt_of(self, waiting: int) -> PromptId:
        assert self._items is not None  # without an evaluation nothing waits
        return PromptId("heldout", self._items[waiting].prompt_index)

    def grant(self, waiting: int, worker: str, deadline_s: float) -> EvaluationLease:
        """The next attempt at item `waiting`."""
        assert self.evaluation is not None  # without one nothing waits
        assert self._items is not None
        reserve = self.reserve_tokens()
        self.account.set_aside(reserve)
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
            self._beside,
        )
        self._leased[waiting] = (lease.key, reserve)
        return lease

    def give_back(self, leases: Sequence[EvaluationLease], expired: bool) -> None:
        """The items wait again, except those that were given up."""
        for lease in leases:
            del self._leased[lease.item]
        items = [lease.item for lease in leases if lease.item not in self._results]
        self._pending = sorted([*self._pending, *items])

    def broken(self, lease: EvaluationLease, workers: tuple[str, ...], poison: bool) -> PoisonedItem | None:
        """None unless the item is given up as poison: by the quarantine, or, beside groups, which a
        quarantine would hold up, after poison_attempts workers in a row."""
        if lease.beside:
            item = EvaluationItem(lease.prompt_index, lease.prompted)
            workers = (*self._lost.get(item, ()), lease.worker)
            self._lost[item] = workers
            poison = len(workers) >= self._poison_attempts
        if not poison:
            return None
        version = lease.version
        self._results[lease.item] = EvaluationResult(lease.key, None, 0, "", False, 0, version, version)
        if not lease.beside:  # which is given back, as all that is not poison by the quarantine
            del self._leased[lease.item]
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
        _, reserve = self._leased.pop(result.item)
        self.account.answered(result.tokens, reserve, lease.beside)
        self._lost.pop(EvaluationItem(lease.prompt_index, lease.prompted), None)
        self._results[result.item] = result
        return "scored"

    def results(self, evaluation: int) -> tuple[EvaluationResult, ...] | None:
        """All results in the order of the items; None while some are missing.

        Raises LedgerError for one that is not open.
        """
        if evaluation != self.evaluation or self._items is None:
            raise LedgerError(f"evaluation {evaluation} is not open")
        if len(self._results) < len(self._items):
            return None
        return tuple(self._results[index] for index in range(len(self._items)))

    def waiting_reason(self) -> str:
        """What `results` waits for, as a sentence."""
        return (
            f"evaluation {self.evaluation}: {len(self._results)} of {len(self._items or ())} items scored, "
            f"{len(self._leased)} leased, {len(self._pending)} pending"
        )
