"""Held-out leases, worked by hand."""

import pytest

from dynalign.configs.errors import LedgerError
from dynalign.configs.sections.capability import SHARE
from dynalign.rollout.ledger.beside_budget import BesideBudget
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationKey,
    EvaluationLease,
    EvaluationLeases,
    EvaluationResult,
    PoisonedItem,
)
from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.values import GroupKey, PromptId

ITEMS = [
    EvaluationItem(7, prompted=False),
    EvaluationItem(7, prompted=True),
    EvaluationItem(9, prompted=False),
]
MOST = 100
"""Tokens that an answer can take."""


def result(lease: EvaluationLease, score: float | None = 2.5) -> EvaluationResult:
    version = lease.version
    return EvaluationResult(lease.key, score, 11, "Yes.", False, 9, version, version)


def table_of() -> LeaseTable:
    return LeaseTable(lease_s=10.0, quarantine=Quarantine(3, {}))


def leases_of(
    table: LeaseTable,
    lineage: int = 1,
    attempts_before: int = 0,
    answered: tuple[EvaluationResult, ...] = (),
    budget: BesideBudget | None = None,
) -> EvaluationLeases:
    budget = budget or BesideBudget()
    return EvaluationLeases(table, lineage, budget, MOST, 2, attempts_before, answered)


def opened() -> EvaluationLeases:
    evaluations = leases_of(table_of())
    evaluations.open(4, ITEMS)
    return evaluations


def test_an_evaluation_is_complete_when_every_item_is_scored() -> None:
    evaluations = opened()
    first, second = evaluations.leases.lease("a", 2, now_s=0.0)
    assert first == EvaluationLease(
        "eval",
        4,
        0,
        7,
        prompted=False,
        attempt=1,
        lineage=1,
        version=4,
        deadline_s=10.0,
        worker="a",
        beside=False,
    )
    (third,) = evaluations.leases.lease("b", 2, now_s=0.0)
    assert evaluations.leases.lease("b", 2, now_s=0.0) == []
    for each in (third, first):
        assert evaluations.report(result(each)) == "scored"
    assert evaluations.results(4) is None
    assert evaluations.waiting_reason() == "evaluation 4: 2 of 3 items scored, 1 leased, 0 pending"
    evaluations.report(result(second, None))
    assert evaluations.results(4) == (result(first), result(second, None), result(third))


def test_expired_items_and_a_dead_worker_s_items_are_leased_again_and_the_old_attempts_are_late() -> None:
    evaluations = opened()
    expired, kept = evaluations.leases.lease("a", 2, now_s=0.0)
    (dead,) = evaluations.leases.lease("b", 1, now_s=0.0)
    assert evaluations.leases.renew("a", [kept.key, dead.key], now_s=5.0) == [dead.key]
    assert evaluations.leases.expire(now_s=10.0) == [expired.key, dead.key]
    again = evaluations.leases.lease("c", 3, now_s=11.0)
    assert [(each.item, each.attempt) for each in again] == [(0, 2), (2, 2)]
    assert evaluations.report(result(expired)) == "late"
    assert evaluations.leases.worker_left("c") == [each.key for each in again]
    assert evaluations.report(result(again[0])) == "late"
    assert evaluations.report(result(kept)) == "scored"


def test_a_repeated_result_changes_nothing() -> None:
    evaluations = opened()
    (first,) = evaluations.leases.lease("a", 1, now_s=0.0)
    evaluations.report(result(first))
    assert evaluations.report(result(first, 0.0)) == "repeated"
    assert evaluations.waiting_reason() == "evaluation 4: 1 of 3 items scored, 0 leased, 2 pending"


def test_opening_again_is_harmless_with_the_same_items_and_refused_with_others() -> None:
    evaluations = opened()
    evaluations.leases.lease("a", 2, now_s=0.0)
    evaluations.open(4, ITEMS)
    assert evaluations.waiting_reason() == "evaluation 4: 0 of 3 items scored, 2 leased, 1 pending"
    with pytest.raises(LedgerError, match="open with other items"):
        evaluations.open(4, ITEMS[:1])


def test_the_next_evaluation_takes_the_place_of_the_one_before() -> None:
    evaluations = opened()
    (old,) = evaluations.leases.lease("a", 1, now_s=0.0)
    evaluations.open(6, ITEMS[:1])
    (new,) = evaluations.leases.lease("a", 3, now_s=0.0)
    assert new.key == EvaluationKey(6, 0, 1, 1)
    assert evaluations.report(result(old)) == "late"
    assert evaluations.leases.renew("a", [old.key], now_s=1.0) == [old.key]
    with pytest.raises(LedgerError, match="evaluation 4 is not open"):
        evaluations.results(4)


def test_a_coordinator_that_was_replaced_does_not_bring_an_earlier_evaluation_back() -> None:
    evaluations = opened()
    evaluations.open(6, ITEMS[:1])
    with pytest.raises(LedgerError, match="evaluation 4 is over: 6 is open"):
        evaluations.open(4, ITEMS)
    assert evaluations.results(6) is None


def test_without_an_evaluation_nothing_is_leased() -> None:
    table = table_of()
    leases_of(table)
    assert table.lease("a", 3, now_s=0.0) == []


def test_a_held_out_prompt_that_breaks_its_workers_is_given_up_and_the_one_beside_it_is_not() -> None:
    evaluations = opened()
    assert [each.item for each in evaluations.leases.lease("a", 3, now_s=0.0)] == [0, 1, 2]
    assert evaluations.leases.worker_died("a") == [None] * 3  # it held all three: none is blamed
    for worker in ("b", "c", "d"):
        assert evaluations.leases.lease(worker, 3, now_s=0.0, holds_other_leases=True) == []
        assert [each.item for each in evaluations.leases.lease(worker, 3, now_s=0.0)] == [0]
        assert evaluations.leases.holds_quarantined(worker)
        assert evaluations.leases.lease(worker, 3, now_s=0.0) == []
        poisoned = evaluations.leases.worker_died(worker)
    assert poisoned == [PoisonedItem(7, ("b", "c", "d"))]
    while evaluations.results(4) is None:
        (only,) = evaluations.leases.lease("e", 3, now_s=0.0)
        assert evaluations.report(result(only)) == "scored"
    assert [each.score for each in evaluations.results(4) or ()] == [None, 2.5, 2.5]


def test_an_answer_of_an_earlier_lineage_or_of_a_ledger_before_is_late() -> None:
    keys = set()
    for lineage, attempts_before in ((1, 0), (1, 1000), (2, 0)):
        evaluations = leases_of(table_of(), lineage, attempts_before)
        evaluations.open(4, ITEMS)
        (lease,) = evaluations.leases.lease("a", 1, now_s=0.0)
        for key in keys:
            old = EvaluationResult(key, 5.0, 1, "Old.", False, 9, 4, 4)
            assert evaluations.report(old) == "late"
        keys.add(lease.key)
    assert len(keys) == 3


def test_keys_of_groups_and_of_held_out_items_are_never_equal() -> None:
    key = EvaluationKey(0, 1, 1, 1)
    assert len({key, GroupKey(0, 1, 1), GroupKey(1, 1, 1), (0, 1, 1), (0, 1, 1, 1)}) == 5


# ---- beside the groups


def beside(tokens: float = 1000.0) -> EvaluationLeases:
    budget = BesideBudget()
    budget.earn(round(tokens / SHARE))
    evaluations = leases_of(table_of(), budget=budget)
    evaluations.open(4, ITEMS, beside=True)
    return evaluations


def test_an_evaluation_beside_the_groups_takes_no_slot_and_one_item_of_a_worker_at_a_time() -> None:
    evaluations = beside()
    table = evaluations.leases
    assert table.lease("a", 5, now_s=0.0) == []
    (first,) = table.lease_beside("a", 0.0)
    assert (first.item, first.beside, table.lease_beside("a", 0.0)) == (0, True, [])
    (second,) = table.lease_beside("b", 0.0)
    late = EvaluationResult(second.key, 3.0, 11, "So.", False, 9, version_min=5, version_max=6)
    assert evaluations.report(late) == "scored"
    assert evaluations.results(4) is None
    evaluations.report(result(first))
    (third,) = table.lease_beside("b", 0.0)
    evaluations.report(result(third))
    assert evaluations.results(4) == (result(first), late, result(third))
    assert evaluations.account.tokens == 60


def test_an_item_beside_the_groups_waits_until_they_have_paid_for_it() -> None:
    evaluations = beside(MOST - 1)
    table = evaluations.leases
    assert (table.something_waits(), table.lease_beside("a", 0.0)) == (False, [])
    evaluations.open(4, ITEMS, beside=True)
    evaluations.account.answered(0, 1, beside=True)  # another answer gave a token back
    (first,) = table.lease_beside("a", 0.0)
    evaluations.report(result(first))
    # The next one may be as long as the longest so far: 20 tokens, of 80 that are left.
    assert [len(table.lease_beside(worker, 0.0)) for worker in "abcde"] == [1, 1, 0, 0, 0]


def test_an_evaluation_beside_the_groups_can_be_waited_for_after_all() -> None:
    evaluations = beside()
    (held,) = evaluations.leases.lease_beside("a", 0.0)
    evaluations.open(4, ITEMS)
    rest = evaluations.leases.lease("b", 5, now_s=0.0)
    assert [(each.item, each.beside) for each in rest] == [(1, False), (2, False)]
    for lease in (held, *rest):
        assert evaluations.report(result(lease)) == "scored"
    assert evaluations.results(4) is not None


def test_one_that_training_waits_for_is_not_put_beside_the_groups_by_a_coordinator_that_was_replaced() -> (
    None
):
    """After the last step nobody earns tokens there: it would never be complete (random history 5682)."""
    evaluations = beside(0.0)
    evaluations.open(4, ITEMS, beside=False)
    evaluations.open(4, ITEMS, beside=True)
    assert len(list(evaluations.waiting())) == len(ITEMS)
    assert list(evaluations.waiting_beside()) == []
    evaluations.open(5, ITEMS, beside=True)
    assert len(list(evaluations.waiting_beside())) == len(ITEMS)


def test_a_death_beside_groups_blames_no_held_out_prompt_until_it_has_taken_several_workers() -> None:
    evaluations = beside()
    table = evaluations.leases
    for worker, poisoned in (("a", None), ("b", PoisonedItem(7, ("a", "b")))):
        (lease,) = table.lease_beside(worker, 0.0)
        assert lease.item == 0
        assert table.worker_died(worker) == [poisoned]
    assert PromptId("heldout", 7) not in table.quarantine
    while evaluations.results(4) is None:
        (lease,) = table.lease_beside("c", 0.0)
        evaluations.report(result(lease))
    assert [each.score for each in evaluations.results(4) or ()] == [None, 2.5, 2.5]
    # A prompt that is answered is suspected no more.
    evaluations.open(8, ITEMS, beside=True)
    (lease,) = table.lease_beside("c", 0.0)
    evaluations.report(result(lease))
    evaluations.open(9, ITEMS, beside=True)
    table.lease_beside("c", 0.0)
    assert table.worker_died("c") == [None]


def test_a_ledger_that_restarts_asks_only_what_has_no_answer_in_its_log() -> None:
    before = opened()
    first, second = before.leases.lease("a", 2, now_s=0.0)
    before.report(result(first))
    after = leases_of(table_of(), attempts_before=1000, answered=(result(first),))
    assert after.evaluation == 4
    assert after.report(result(second)) == "late"
    after.open(4, ITEMS)
    again = after.leases.lease("b", 5, now_s=0.0)
    assert [(each.item, each.attempt) for each in again] == [(1, 1001), (2, 1001)]
    for lease in again:
        after.report(result(lease))
    assert after.results(4) == (result(first), *map(result, again))
    other = leases_of(table_of(), answered=(result(first),))
    other.open(6, ITEMS)
    assert len(other.leases.lease("b", 5, now_s=0.0)) == 3
