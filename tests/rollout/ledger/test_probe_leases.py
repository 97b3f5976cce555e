"""Leases of the capability probe, worked by hand, and its budget over random histories."""

from random import Random
from typing import Any

import pytest

from dynalign.configs.errors import LedgerError
from dynalign.configs.sections.capability import SHARE
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.rollout.ledger.beside_budget import BesideBudget
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationLeases, EvaluationResult
from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeLease, ProbeLeases, ProbeResult
from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.values import PromptId

QUESTIONS = [Question("policy", (Message("user", text),), max_tokens=6) for text in ("1 + 1", "2 + 2")]
BOUND = 11
"""Tokens that are set aside for the first question: its characters, and its answer's most tokens."""


def answer(lease: ProbeLease, tokens: int = 7, version: int = 4) -> ProbeResult:
    answers = Answers((Answer("2", "stop"),), "policy", tokens - 1, 1)
    return ProbeResult(lease.key, answers, version, version)


class Probes(ProbeLeases):
    """A probe with a budget of its own."""

    def __init__(
        self, broken: dict[PromptId, tuple[str, ...]] | None = None, poison_attempts: int = 2
    ) -> None:
        self.budget = BesideBudget()
        table = LeaseTable(10.0, Quarantine(3, broken or {}))
        super().__init__(table, 1, self.budget, poison_attempts)


def opened(probe: int, broken: dict[PromptId, tuple[str, ...]] | None = None) -> Probes:
    probes = Probes(broken)
    probes.open(probe, QUESTIONS, beside=probe > 0)
    return probes


def beside(probes: ProbeLeases, worker: str = "a", now_s: float = 0.0) -> list[Any]:
    return probes.leases.lease_beside(worker, now_s)


def rich(probe: int = 4) -> Probes:
    probes = opened(probe)
    probes.budget.earn(round(100 / SHARE))
    return probes


def test_the_initial_policy_is_asked_as_any_other_lease_and_never_beside() -> None:
    probes = opened(0)
    first, second = probes.leases.lease("a", 5, now_s=0.0)
    assert first == ProbeLease(
        "probe", 0, 0, QUESTIONS[0], 1, lineage=1, version=0, deadline_s=10.0, worker="a", beside=False
    )
    probes.budget.earn(10_000)
    assert beside(probes, "b") == []
    assert probes.report(answer(first, version=0)) == probes.report(answer(second, version=0)) == "scored"
    assert probes.answers(0).missing == 0
    assert (probes.budget.tokens, probes.account.tokens) == (SHARE * 10_000, 0)  # nothing was taken from it


def test_a_later_probe_is_asked_beside_the_groups_alone_and_one_question_at_a_time() -> None:
    probes = rich()
    assert probes.leases.lease("a", 5, now_s=0.0) == []
    (first,) = beside(probes)
    assert first.beside
    assert beside(probes) == []
    (second,) = beside(probes, "b")
    assert probes.report(answer(second)) == "scored"
    assert probes.report(answer(second)) == "repeated"
    assert beside(probes, "b") == []
    assert probes.answers(4) == ProbeAnswers(4, (answer(second),), missing=1)
    assert probes.waiting_reason() == (
        "the capability probe of step 4: 1 of 2 questions answered, 1 leased, 0 pending"
    )


def test_a_question_waits_until_a_twentieth_of_the_groups_tokens_pays_for_it() -> None:
    probes = opened(4)
    assert not probes.leases.something_waits()
    probes.budget.earn(round(BOUND / SHARE) - 1)
    assert beside(probes) == []
    probes.budget.earn(1)
    assert probes.leases.something_waits()
    (lease,) = beside(probes)
    assert probes.budget.tokens == pytest.approx(0.0)
    probes.report(answer(lease, tokens=7))
    assert probes.budget.tokens == pytest.approx(BOUND - 7)
    assert beside(probes) == []  # the largest answer had 7 tokens by now, and 4 are there
    probes.budget.earn(60)
    assert len(beside(probes)) == 1


def test_what_a_step_leaves_unspent_pays_for_one_answer_of_the_next() -> None:
    probes = rich()
    probes.budget.committed(probes.reserve_tokens())
    assert probes.budget.tokens == BOUND


def test_over_random_histories_the_answers_stay_within_their_share() -> None:
    for seed in range(40):
        random = Random(seed)
        probes = Probes(poison_attempts=1000)
        probes.open(1, [QUESTIONS[0]] * 500, beside=True)
        earned = spent = largest = 0
        for now_s in range(300):
            match random.choice(["group", "ask", "ask", "answer", "answer", "commit", "die", "expire"]):
                case "group":
                    earned += (tokens := random.randint(0, 300))
                    probes.budget.earn(tokens)
                case "ask":
                    beside(probes, random.choice("abc"), now_s)
                case "answer":
                    for lease in probes.leases.of_worker(random.choice("abc")):
                        tokens = random.randint(2, BOUND)
                        spent += tokens
                        largest = max(largest, tokens)
                        assert probes.report(answer(lease, tokens)) == "scored"
                case "commit":
                    probes.budget.committed(probes.reserve_tokens())
                case "die":
                    probes.leases.worker_died(random.choice("abc"))
                case "expire":
                    probes.leases.expire(now_s)
            assert spent == probes.account.tokens <= SHARE * earned + 3 * (BOUND - 2), seed
        assert spent > 0


def test_a_lost_worker_s_question_is_asked_again_and_given_up_when_it_loses_one_after_another() -> None:
    probes = rich()
    (first,) = beside(probes)
    assert probes.leases.worker_died("a") == [None]
    assert probes.report(answer(first)) == "late"
    (again,) = beside(probes, "b")
    assert (again.item, again.attempt) == (0, 2)
    probes.leases.worker_died("b")
    assert probes.answers(4) == ProbeAnswers(4, (ProbeResult(again.key, None, 4, 4),), missing=1)
    (other,) = beside(probes, "c")
    assert other.item == 1


def test_an_expired_question_is_asked_again_and_a_worker_that_leaves_gives_its_back() -> None:
    probes = rich()
    (lease,) = beside(probes)
    assert probes.leases.expire(10.0) == [lease.key]
    (again,) = beside(probes, "a", 10.0)
    assert probes.leases.worker_left("a") == [again.key]
    assert beside(probes, "b", 10.0)[0].item == 0


TWO = [EvaluationItem(7, prompted=False), EvaluationItem(9, prompted=False)]


def with_groups(
    broken: dict[PromptId, tuple[str, ...]], both_beside: bool = False
) -> tuple[Probes, EvaluationLeases]:
    """A probe beside two prompts of another kind, which is beside the groups itself if `both_beside`."""
    probes = opened(4, broken)
    probes.budget.earn(10_000)
    others = EvaluationLeases(probes.leases, 1, probes.budget, most_tokens=400, poison_attempts=2)
    others.open(4, TWO, both_beside)
    return probes, others


def test_a_death_brings_the_prompts_beside_a_question_under_quarantine_and_not_the_question() -> None:
    probes, _ = with_groups({})
    probes.leases.lease("a", 1, now_s=0.0)
    beside(probes)
    probes.leases.worker_died("a")
    assert PromptId("heldout", 7) in probes.leases.quarantine
    assert probes.leases.quarantine.workers(PromptId("heldout", 7)) == ()  # it was not alone
    assert len(probes.leases.quarantine) == 1


def test_no_question_is_asked_while_a_prompt_under_quarantine_waits_or_is_in_hand() -> None:
    probes, others = with_groups({PromptId("heldout", 7): ()})
    assert beside(probes, "b") == []
    (alone,) = probes.leases.lease("a", 3, now_s=0.0)
    assert alone.prompt_index == 7
    assert beside(probes, "a") == []
    assert len(beside(probes, "b")) == 1


def test_opening_again_is_harmless_and_another_probe_takes_its_place() -> None:
    probes = rich()
    (lease,) = beside(probes)
    probes.open(4, QUESTIONS, beside=True)
    assert probes.leases.get(lease.key) is lease
    with pytest.raises(LedgerError, match="probe 4 is open with other questions"):
        probes.open(4, QUESTIONS[:1], beside=True)
    probes.open(8, QUESTIONS, beside=True)
    assert probes.report(answer(lease)) == "late"
    assert beside(probes)[0].version == 8
    with pytest.raises(LedgerError, match="probe 4 is over: 8 is open"):
        probes.open(4, QUESTIONS, beside=True)
    with pytest.raises(LedgerError, match="probe 4 is not open"):
        probes.answers(4)


def test_kinds_that_are_asked_beside_the_groups_take_turns_also_where_one_is_dearer() -> None:
    probes, others = with_groups({}, both_beside=True)
    probes.budget.tokens = 350.0
    # The evaluation's turn: it has to save up 400 tokens first, and no question takes them away.
    probes.leases.lease_beside("a", 0.0)
    assert [lease.kind for lease in probes.leases.of_worker("a")] == ["probe"]
    assert beside(probes, "b") == []
    probes.budget.tokens = 400.0
    (held,) = beside(probes, "b")
    assert (held.kind, beside(probes, "b")) == ("eval", [])
    others.report(EvaluationResult(held.key, 2.0, 10, "So.", False, 9, 4, 4))
    assert [lease.kind for worker in "bc" for lease in beside(probes, worker)] == ["probe", "eval"]


def test_the_kind_that_has_nothing_to_ask_leaves_its_turn_to_the_other() -> None:
    probes, others = with_groups({}, both_beside=True)
    others.open(5, [], beside=True)
    assert [lease.kind for worker in "abc" for lease in beside(probes, worker)] == ["probe", "probe"]
