"""Held-out leases, worked by hand."""

import pytest

from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationLease,
    EvaluationLeases,
    EvaluationResult,
    PoisonedItem,
)

ITEMS = [
    EvaluationItem(7, prompted=False),
    EvaluationItem(7, prompted=True),
    EvaluationItem(9, prompted=False),
]


def result(lease: EvaluationLease, score: float | None = 2.5) -> EvaluationResult:
    return EvaluationResult(*lease.key, score, completion_tokens=11, completion="Yes.", truncated=False)


def opened() -> EvaluationLeases:
    leases = EvaluationLeases(lease_s=10.0, lineage=1)
    leases.open(4, ITEMS)
    return leases


def test_an_evaluation_is_complete_when_every_item_is_scored() -> None:
    leases = opened()
    first, second = leases.lease("a", 2, now_s=0.0)
    assert first == EvaluationLease(
        "eval", 4, 0, 7, prompted=False, attempt=1, lineage=1, version=4, deadline_s=10.0, worker="a"
    )
    (third,) = leases.lease("b", 2, now_s=0.0)
    assert leases.lease("b", 2, now_s=0.0) == []
    for each in (third, first):
        assert leases.report(result(each)) == "scored"
    assert leases.results(4) is None
    assert leases.waiting_reason() == "evaluation 4: 2 of 3 items scored, 1 leased, 0 pending"
    leases.report(result(second, None))
    assert leases.results(4) == (result(first), result(second, None), result(third))


def test_expired_items_and_a_dead_worker_s_items_are_leased_again_and_the_old_attempts_are_late() -> None:
    leases = opened()
    expired, kept = leases.lease("a", 2, now_s=0.0)
    (dead,) = leases.lease("b", 1, now_s=0.0)
    assert leases.renew("a", [kept.key, dead.key], now_s=5.0) == [dead.key]
    assert leases.expire(now_s=10.0) == [expired.key, dead.key]
    again = leases.lease("c", 3, now_s=11.0)
    assert [(each.item, each.attempt) for each in again] == [(0, 2), (2, 2)]
    assert leases.report(result(expired)) == "late"
    assert leases.worker_left("c") == [each.key for each in again]
    assert leases.report(result(again[0])) == "late"
    assert leases.report(result(kept)) == "scored"


def test_a_repeated_result_changes_nothing() -> None:
    leases = opened()
    (first,) = leases.lease("a", 1, now_s=0.0)
    leases.report(result(first))
    assert leases.report(result(first, 0.0)) == "repeated"
    assert leases.waiting_reason() == "evaluation 4: 1 of 3 items scored, 0 leased, 2 pending"


def test_opening_again_is_harmless_with_the_same_items_and_refused_with_others() -> None:
    leases = opened()
    leases.lease("a", 2, now_s=0.0)
    leases.open(4, ITEMS)
    assert leases.waiting_reason() == "evaluation 4: 0 of 3 items scored, 2 leased, 1 pending"
    with pytest.raises(LedgerError, match="open with other items"):
        leases.open(4, ITEMS[:1])


def test_the_next_evaluation_takes_the_place_of_the_one_before() -> None:
    leases = opened()
    (old,) = leases.lease("a", 1, now_s=0.0)
    leases.open(6, ITEMS[:1])
    (new,) = leases.lease("a", 3, now_s=0.0)
    assert new.key == (6, 0, 1)
    assert leases.report(result(old)) == "late"
    assert leases.renew("a", [old.key], now_s=1.0) == [old.key]
    with pytest.raises(LedgerError, match="evaluation 4 is not open"):
        leases.results(4)


def test_without_an_evaluation_nothing_is_leased() -> None:
    assert EvaluationLeases(lease_s=10.0, lineage=1).lease("a", 3, now_s=0.0) == []


def test_a_held_out_prompt_that_breaks_its_workers_is_given_up_and_the_one_beside_it_is_not() -> None:
    leases = opened()
    assert [each.item for each in leases.lease("a", 3, now_s=0.0)] == [0, 1, 2]
    assert leases.worker_died("a") == ()
    for worker in ("b", "c"):
        assert leases.lease(worker, 3, now_s=0.0, busy=True) == []
        assert [each.item for each in leases.lease(worker, 3, now_s=0.0)] == [0]
        assert leases.holds_suspect(worker)
        assert leases.lease(worker, 3, now_s=0.0) == []
        poisoned = leases.worker_died(worker)
    assert poisoned == (PoisonedItem(7, ("a", "b", "c")),)
    while leases.results(4) is None:
        (only,) = leases.lease("d", 3, now_s=0.0)
        assert leases.report(result(only)) == "scored"
    assert [each.score for each in leases.results(4) or ()] == [None, 2.5, 2.5]
