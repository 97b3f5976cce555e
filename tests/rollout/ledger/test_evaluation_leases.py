"""Held-out leases, worked by hand."""

import pytest

from dynalign.configs.errors import LedgerError
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
from dynalign.rollout.ledger.values import GroupKey

ITEMS = [
    EvaluationItem(7, prompted=False),
    EvaluationItem(7, prompted=True),
    EvaluationItem(9, prompted=False),
]


def result(lease: EvaluationLease, score: float | None = 2.5) -> EvaluationResult:
    return EvaluationResult(lease.key, score, completion_tokens=11, completion="Yes.", truncated=False)


def table_of() -> LeaseTable:
    return LeaseTable(lease_s=10.0, quarantine=Quarantine(3, {}))


def opened() -> EvaluationLeases:
    evaluations = EvaluationLeases(table_of(), lineage=1)
    evaluations.open(4, ITEMS)
    return evaluations


def test_an_evaluation_is_complete_when_every_item_is_scored() -> None:
    evaluations = opened()
    first, second = evaluations.leases.lease("a", 2, now_s=0.0)
    assert first == EvaluationLease(
        "eval", 4, 0, 7, prompted=False, attempt=1, lineage=1, version=4, deadline_s=10.0, worker="a"
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
    EvaluationLeases(table, lineage=1)
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
        evaluations = EvaluationLeases(table_of(), lineage, attempts_before)
        evaluations.open(4, ITEMS)
        (lease,) = evaluations.leases.lease("a", 1, now_s=0.0)
        for key in keys:
            assert evaluations.report(EvaluationResult(key, 5.0, 1, "Old.", truncated=False)) == "late"
        keys.add(lease.key)
    assert len(keys) == 3


def test_keys_of_groups_and_of_held_out_items_are_never_equal() -> None:
    key = EvaluationKey(0, 1, 1, 1)
    assert len({key, GroupKey(0, 1, 1), GroupKey(1, 1, 1), (0, 1, 1), (0, 1, 1, 1)}) == 5
