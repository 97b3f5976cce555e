"""The ledger's transitions, worked by hand: leases, reports, commits, the end."""

from dataclasses import replace

import pytest

from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.values import FAILED_ATTEMPTS, Commit, Counts, GroupKey, Lease, Reservation
from tests.worlds.ledger_hand import (
    TWO_PER_STEP,
    commit_step,
    dull,
    expire,
    lease,
    ledger_of,
    score,
    scored_group,
    take,
    train,
    worker_died,
    worker_left,
)


def test_a_group_goes_from_draw_to_trained() -> None:
    ledger = ledger_of()
    first, second = lease(ledger, 2)
    assert first == Lease(
        "train", 0, 0, 0, attempt=1, lineage=1, version=0, deadline_s=10.0, worker="worker-0"
    )
    assert ledger.counts() == Counts(2, 0, 2, 0, 0, 0, 0, 0, 0)
    score(ledger, first, second)
    assert ledger.counts() == Counts(2, 0, 0, 2, 0, 0, 0, 0, 0)
    groups = tuple(scored_group(each, 0, 0) for each in (first, second))
    assert ledger.take(1) == Reservation(step=1, version=0, groups=groups)
    assert ledger.counts().scored == 2
    commit_step(ledger, 1)
    assert ledger.counts() == Counts(2, 0, 0, 0, 2, 0, 0, 0, 0)
    assert lease(ledger, 1)[0].version == 1


def test_the_prompt_of_a_lease_follows_the_draw_order_through_the_epochs() -> None:
    leases = lease(ledger_of(replace(TWO_PER_STEP, max_staleness=4)), 7)
    assert [(each.group_id, each.prompt_index, each.epoch) for each in leases][3:] == [
        (3, 3, 0),
        (4, 4, 0),
        (5, 0, 1),
        (6, 1, 1),
    ]


@pytest.mark.parametrize(("staleness", "groups"), [(0, 2), (1, 4), (2, 6), (4, 8)])
def test_capacity_admits_one_batch_per_version_of_staleness_and_no_more_than_the_run_needs(
    staleness: int, groups: int
) -> None:
    ledger = ledger_of(replace(TWO_PER_STEP, max_staleness=staleness))
    assert len(lease(ledger, 99)) == groups == ledger.counts().issued  # 4 steps of 2 are all the run needs


def test_a_reserved_batch_counts_as_scored_until_it_is_committed() -> None:
    ledger = ledger_of()
    score(ledger, *lease(ledger, 4))
    ledger.take(1)
    assert ledger.capacity() == 0
    commit_step(ledger, 1)
    assert ledger.capacity() == 2


def test_requeued_groups_are_leased_before_new_draws_the_oldest_first() -> None:
    ledger = ledger_of()
    lease(ledger, 2, "worker-0")
    lease(ledger, 1, "worker-1")
    assert worker_left(ledger, "worker-0") == [0, 1]
    assert worker_left(ledger, "worker-1") == [2]
    again = lease(ledger, 4)
    assert [(each.group_id, each.attempt) for each in again] == [(0, 2), (1, 2), (2, 2), (3, 1)]
    assert ledger.counts().requeued == 3


def test_a_lease_expires_at_its_deadline_unless_it_is_renewed() -> None:
    ledger = ledger_of()
    first, second = lease(ledger, 2, now_s=0.0)
    assert ledger.leases.renew("worker-0", [first.key], now_s=9.0) == []
    assert expire(ledger, now_s=9.9) == []
    assert expire(ledger, now_s=10.0) == [second.group_id]
    assert expire(ledger, now_s=19.0) == [first.group_id]
    assert ledger.leases.renew("worker-0", [first.key, second.key], now_s=19.0) == [first.key, second.key]


def test_only_the_worker_that_holds_a_lease_can_renew_it() -> None:
    ledger = ledger_of()
    (first,) = lease(ledger, 1)
    assert ledger.leases.renew("worker-1", [first.key, GroupKey(7, 1, 1)], 1.0) == [
        first.key,
        GroupKey(7, 1, 1),
    ]


def test_an_old_attempt_is_late_and_never_trained() -> None:
    ledger = ledger_of()
    (old,) = lease(ledger, 1)
    worker_died(ledger, "worker-0")
    (new,) = lease(ledger, 1, "worker-1")
    assert ledger.report(scored_group(old, 0, 0)) == "late"
    assert ledger.withhold(old.key, "refused") == "late"
    assert ledger.counts().late == 2
    score(ledger, new)
    assert ledger.state.scored[0].group.attempt == 2


def test_a_report_of_another_lineage_is_late() -> None:
    ledger = ledger_of()
    (first,) = lease(ledger, 1)
    assert ledger.report(scored_group(first._replace(lineage=2), 0, 0)) == "late"


def test_a_repeated_report_changes_nothing_before_and_after_the_commit() -> None:
    ledger = ledger_of()
    leases = lease(ledger, 3)
    score(ledger, *leases[:2])
    dull(ledger, leases[2])
    before = ledger.counts()
    assert [ledger.report(scored_group(each, 0, 0)) for each in leases] == ["repeated"] * 3
    assert ledger.withhold(leases[2].key, "low_signal") == "repeated"
    assert ledger.counts() == before
    ledger.take(1)
    commit_step(ledger, 1)
    assert ledger.report(scored_group(leases[0], 0, 0)) == "repeated"


def test_what_a_ledger_remembers_of_reports_does_not_grow_with_the_run() -> None:
    ledger = ledger_of(replace(TWO_PER_STEP, steps=100))
    sizes = []
    for step in range(1, 51):
        first, second, third = lease(ledger, 3)
        dull(ledger, first)
        score(ledger, second, third)
        ledger.take(step)
        commit_step(ledger, step)
        sizes.append(len(ledger._accepted))
    assert sizes[1:] == [3] * 49
    assert ledger.report(scored_group(third, 49, 49)) == "repeated"


def test_a_group_with_a_token_older_than_its_lease_is_late() -> None:
    ledger = ledger_of()
    train(ledger, 1)
    (young,) = lease(ledger, 1)
    assert ledger.report(scored_group(young, 0, 1)) == "late"
    assert ledger.report(scored_group(young, 1, 1)) == "scored"


def test_a_commit_is_repeatable_and_out_of_turn_it_is_refused() -> None:
    ledger = ledger_of()
    with pytest.raises(LedgerError, match="no batch is reserved"):
        commit_step(ledger, 1)
    train(ledger, 1)
    counts = ledger.counts()
    assert commit_step(ledger, 1) is None
    assert commit_step(ledger, 1, (1, 0)) is None
    with pytest.raises(LedgerError, match="was committed with groups"):
        commit_step(ledger, 1, (0, 7))
    for step in (0, 3):
        with pytest.raises(LedgerError, match="out of turn: 1 of 4"):
            commit_step(ledger, step)
    with pytest.raises(LedgerError, match="out of turn"):
        ledger.take(1)
    assert ledger.counts() == counts


def test_what_the_learner_trained_decides_wherever_the_ledger_has_the_groups() -> None:
    ledger = ledger_of()
    zero, one, two, three = lease(ledger, 4)
    score(ledger, zero, one)
    assert take(ledger, 1) == (0, 1)
    commit_step(ledger, 1, (1, 2))
    assert ledger.counts() == Counts(4, 0, 1, 1, 2, 0, 0, 0, 0)
    assert ledger.report(scored_group(two, 0, 0)) == "late"
    commit_step(ledger, 2, (3, 5))  # 3 is leased, 4 and 5 were drawn by a ledger that died with them
    assert ledger.counts().issued == 6
    assert ledger.state.pending == [0, 4]  # 0 was due at version 1 and is born anew
    assert ledger.report(scored_group(three, 0, 0)) == "late"


@pytest.mark.parametrize("group_ids", [(0, 1), (2, 2), ()])
def test_a_commit_of_groups_that_are_trained_doubled_or_none_is_refused(group_ids: tuple[int, ...]) -> None:
    ledger = ledger_of()
    train(ledger, 1)
    with pytest.raises(LedgerError, match="not distinct, or trained before"):
        commit_step(ledger, 2, group_ids)


def test_a_commit_carries_what_was_withheld_since_the_one_before() -> None:
    ledger = ledger_of()
    zero, one, two = lease(ledger, 3)
    dull(ledger, zero)
    score(ledger, one, two)
    ledger.take(1)
    commit = commit_step(ledger, 1)
    assert commit is not None
    assert commit.withheld == ((0, "low_signal"),)
    score(ledger, *lease(ledger, 2))
    ledger.take(2)
    assert commit_step(ledger, 2) == Commit(2, 1, (3, 4), withheld=())
    assert ledger.withheld_by_reason() == {"low_signal": 1}


def test_a_group_whose_attempts_are_used_up_is_withheld() -> None:
    ledger = ledger_of()
    for now_s in range(0, 10 * FAILED_ATTEMPTS, 10):
        assert [each.group_id for each in lease(ledger, 1, now_s=now_s)] == [0]
        expire(ledger, now_s + 10.0)
    assert ledger.withheld_by_reason() == {"attempts_exhausted": 1}
    assert [each.group_id for each in lease(ledger, 1)] == [1]


def test_what_is_left_at_the_end_is_withheld() -> None:
    ledger = ledger_of()
    train(ledger, 1)
    leases = lease(ledger, 2, "slow") + lease(ledger, 2)
    score(ledger, leases[1], leases[2])
    ledger.take(2)
    worker_died(ledger, "slow")
    ledger.end()
    assert ledger.withheld_by_reason() == {"run_ended": 4}
    assert ledger.counts() == Counts(6, 0, 0, 0, 2, 4, 1, 0, 0)
    assert lease(ledger, 1) == []
    assert ledger.report(scored_group(leases[3], 1, 1)) == "late"
    assert ledger.waiting_reason() == "nothing: the run has ended"
    with pytest.raises(LedgerError, match="the run has ended"):
        ledger.take(2)


def test_a_broken_law_is_an_error_at_the_next_transition() -> None:
    ledger = ledger_of()
    (only,) = lease(ledger, 1)
    ledger.state.trained += 1
    with pytest.raises(LedgerError, match="conservation law is broken"):
        score(ledger, only)
