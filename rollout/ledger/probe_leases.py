"""The `LeaseKind` of the capability probe: questions that workers answer beside their groups.

It enters neither the capacity nor the conservation law of the training groups, and is kept in memory only: a
ledger that restarts has none, and the coordinator opens it again.

A probe that training waits for is leased ahead of everything, as such held-out prompts are: that of the
initial policy, whose answers can only be had before step 1, and every one where learner and engines take
turns. Every other probe is leased *beside*: to a worker that has no such lease, in no slot of a training
group, and only while `BesideBudget` has room for one more answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.errors import LedgerError
from dynalign.endpoint.base import Answers, Question
from dynalign.rollout.ledger.beside_budget import BesideAccount, BesideBudget
from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.values import PromptId


@dataclass(frozen=True, slots=True)
class ProbeKey:
    """Names one attempt at one question of one probe: ProbeKey(probe=40, item=7, attempt=1, lineage=3)."""

    probe: int
    """The committed step with which the probe was opened."""
    item: int
    """Position of the question in the probe."""
    attempt: int
    """Number of the lease of this question, rising within a lineage."""
    lineage: int
    """The history of the run that the attempt belongs to."""


@dataclass(frozen=True, slots=True)
class ProbeLease:
    """One question to answer.

    ProbeLease("probe", probe=40, item=7, question=Question("policy", (Message("user", "2 + 2?"),)),
    attempt=1, lineage=3, version=40, deadline_s=1600.0, worker="rollout-0", beside=True)
    """

    kind: Literal["probe"]
    """What tells this lease from one of another kind."""
    probe: int
    """See `ProbeKey`."""
    item: int
    """See `ProbeKey`."""
    question: Question
    """What is asked of the policy."""
    attempt: int
    """See `ProbeKey`."""
    lineage: int
    """See `ProbeKey`."""
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
        return False

    @property
    def key(self) -> ProbeKey:
        return ProbeKey(self.probe, self.item, self.attempt, self.lineage)

    @property
    def prompt(self) -> PromptId:
        return PromptId("probe", self.item)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A worker's report about one lease: ProbeResult(ProbeKey(40, 7, 1, 3), Answers((Answer("4", "stop"),),
    "policy", 31, 2), version_min=41, version_max=42)."""

    key: ProbeKey
    """The lease that it answers."""
    answers: Answers | None
    """What the policy says; None for a question that the engine refuses, or that was given up."""
    version_min: int
    """Version of the answer's oldest token, in steps."""
    version_max: int
    """Version of its newest token, in steps."""

    @property
    def item(self) -> int:
        return self.key.item

    @property
    def tokens(self) -> int:
        """Tokens that were read and written."""
        answers = self.answers
        return 0 if answers is None else answers.prompt_tokens + answers.completion_tokens


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """A probe as it stands: ProbeAnswers(40, (ProbeResult(...),), missing=12)."""

    probe: int
    """See `ProbeKey`."""
    results: tuple[ProbeResult, ...]
    """In the order of the questions."""
    missing: int
    """Questions without a result yet."""


class ProbeLeases:
    """The open probe, in one lineage, leased through `leases`.

    budget: for what is leased beside groups. poison_attempts: workers in a row that may be lost with a
    question in hand, before it is given up. attempts_before: as of `EvaluationLeases`.
    """

    def __init__(
        self,
        leases: LeaseTable,
        lineage: int,
        budget: BesideBudget,
        poison_attempts: int,
        attempts_before: int = 0,
    ) -> None:
        self.leases = leases
        self.lineage = lineage
        self.account = BesideAccount(budget)
        self.probe: int | None = None
        self._poison_attempts = poison_attempts
        self._attempts_before = attempts_before
        self._questions: tuple[Question, ...] = ()
        self._beside = False
        self._pending: list[int] = []
        self._results: dict[int, ProbeResult] = {}
        self._leased: dict[int, tuple[ProbeKey, int]] = {}
        """Item to its key and the tokens that are set aside for it."""
        self._attempts: list[int] = []
        self._lost: Counter[int] = Counter()
        """Item to the workers that were lost with it since it was last answered."""
        leases.add_beside("probe", self)

    def open(self, probe: int, questions: Sequence[Question], beside: bool) -> None:
        """Replaces the probe before it, whose leases become void.

        Opening the same one again changes nothing, but that what is left is leased ahead once training waits
        for it. Raises LedgerError for the same one with other questions, and for an earlier one, which only a
        coordinator that was replaced asks for.
        """
        if self.probe is not None and probe < self.probe:
            raise LedgerError(f"probe {probe} is over: {self.probe} is open")
        if probe == self.probe:
            if self._questions != tuple(questions):
                raise LedgerError(f"probe {probe} is open with other questions")
            self._beside = self._beside and beside
            return
        for key, _ in self._leased.values():
            self.leases.release(key)
        self.probe = probe
        self._questions = tuple(questions)
        self._beside = beside
        self._pending = list(range(len(questions)))
        self._attempts = [self._attempts_before] * len(questions)
        self._leased = {}
        self._results = {}

    def reserve_tokens(self) -> int:
        """Tokens to set aside for the next question beside groups; 0 if none is to be asked so."""
        if not self._beside or not self._pending:
            return 0
        question = self._questions[self._pending[0]]
        bound = question.max_tokens + sum(len(message.content) for message in question.messages)
        return self.account.reserve(bound)

    # ---- as a kind of lease

    def waiting(self) -> Iterable[int]:
        """Questions of a probe that training waits for."""
        return () if self._beside else self._pending

    def waiting_beside(self) -> Iterable[int]:
        """Those of one that is leased beside groups."""
        return self._pending if self._beside else ()

    def affordable(self) -> bool:
        return self.account.affords(self.reserve_tokens())

    def prompt_of(self, waiting: int) -> PromptId:
        return PromptId("probe", waiting)

    def grant(self, waiting: int, worker: str, deadline_s: float) -> ProbeLease:
        """The next attempt at question `waiting`."""
        assert self.probe is not None  # without one nothing waits
        reserve = self.reserve_tokens()
        self.account.set_aside(reserve)
        self._pending.remove(waiting)
        self._attempts[waiting] += 1
        lease = ProbeLease(
            "probe",
            self.probe,
            waiting,
            self._questions[waiting],
            self._attempts[waiting],
            self.lineage,
            self.probe,
            deadline_s,
            worker,
            self._beside,
        )
        self._leased[waiting] = (lease.key, reserve)
        return lease

    def give_back(self, leases: Sequence[ProbeLease], expired: bool) -> None:
        """The questions wait again, except those that were given up."""
        for lease in leases:
            del self._leased[lease.item]
        items = [lease.item for lease in leases if lease.item not in self._results]
        self._pending = sorted([*self._pending, *items])

    def broken(self, lease: ProbeLease, workers: tuple[str, ...], poison: bool) -> None:
        """Its prompt is never under quarantine, which would hold up training groups: a question whose workers
        die one after another is given up instead."""
        self._lost[lease.item] += 1
        if self._lost[lease.item] >= self._poison_attempts:
            self._results[lease.item] = ProbeResult(lease.key, None, lease.version, lease.version)

    # ---- reports

    def report(self, result: ProbeResult) -> Literal["scored", "late", "repeated"]:
        """A worker's answer; nothing changes by one whose key is not current."""
        known = self._results.get(result.item)
        if known is not None and known.key == result.key:
            return "repeated"
        lease = self.leases.get(result.key)
        if lease is None:
            return "late"
        self.leases.release(result.key)
        _, reserve = self._leased.pop(result.item)
        self.account.answered(result.tokens, reserve, lease.beside)
        self._lost.pop(result.item, None)
        self._results[result.item] = result
        return "scored"

    def answers(self, probe: int) -> ProbeAnswers:
        """What there is of it. Raises LedgerError for one that is not open."""
        if probe != self.probe:
            raise LedgerError(f"probe {probe} is not open")
        results = tuple(self._results[item] for item in sorted(self._results))
        return ProbeAnswers(probe, results, len(self._questions) - len(results))

    def waiting_reason(self) -> str:
        """What a probe that training waits for lacks, as a sentence."""
        return (
            f"the capability probe of step {self.probe}: {len(self._results)} of {len(self._questions)} "
            f"questions answered, {len(self._leased)} leased, {len(self._pending)} pending"
        )
