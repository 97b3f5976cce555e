"""Which groups a step takes, worked by hand: birth order, the age bound, groups without signal, missing
groups."""

import pickle
from collections import Counter
from dataclasses import replace

import pytest

from dynalign.configs.errors import NoSignal, UnreadableGroups
from dynalign.rollout.ledger.age_bound import first_unmeetable, meetable
from dynalign.rollout.ledger.rules import UNREADABLE_BATCHES
from dynalign.rollout.ledger.values import JUDGE_UNREACHABLE, GroupKey
from tests.worlds.ledger_hand import (
    TWO_PER_STEP,
    commit_step,
    dull,
    lease,
    ledger_of,
    score,
    take,
    worker_died,
)

SYNCHRONOUS = replace(TWO_PER_STEP, max_staleness=0)


def test_take_follows_the_order_of_birth_then_of_draw() -> None:
    """Golden. Version 0: draws 0 to 3 are leased, 1 dies. Version 1: 1 is born anew, 4 is new. Finished in
    any order, they are taken as (0, 2), (3, 1): born (0, 0), (0, 1); draw 4 waits."""
    ledger = ledger_of()
    zero, dead, two, three = (lease(ledger, 1, worker)[0] for worker in ("a", "b", "c", "d"))
    score(ledger, three, two, zero)
    assert take(ledger, 1) == (0, 2)
    worker_died(ledger, "b")
    commit_step(ledger, 1)
    (one,), (four,) = lease(ledger, 1, "a"), lease(ledger, 1, "c")
    assert ((one.group_id, one.version), (four.group_id, four.version)) == ((1, 1), (4, 1))
    score(ledger, four, one)
    assert take(ledger, 2) == (3, 1)
    assert dead.key != one.key


def test_a_young_group_overtakes_only_while_every_group_left_behind_can_still_be_met() -> None:
    ledger = ledger_of()  # max_staleness 1: born at 0 is due at version 1
    straggler, *others = lease(ledger, 4)
    score(ledger, *others)
    assert take(ledger, 1) == (1, 2)  # at version 0; the straggler can still be in the batch of version 1
    commit_step(ledger, 1)
    score(ledger, *lease(ledger, 1))
    assert (
        take(ledger, 2) is None
    )  # at version 1 it is due: groups 3 and 4 are there and may not go without it
    assert ledger.straggler() == straggler
    assert ledger.waiting_reason().startswith(
        "straggler group 0 leased to worker-0 (attempt 1, due at version 1); 2 of 2 groups scored"
    )
    score(ledger, straggler)
    assert take(ledger, 2) == (0, 3)


def test_a_straggler_that_dies_is_born_anew_and_blocks_no_longer() -> None:
    ledger = ledger_of()
    _, *others = lease(ledger, 1, "slow") + lease(ledger, 3)
    score(ledger, *others)
    ledger.take(1)
    commit_step(ledger, 1)
    score(ledger, *lease(ledger, 1))
    assert take(ledger, 2) is None
    worker_died(ledger, "slow")
    assert take(ledger, 2) == (3, 4)


def test_more_stragglers_than_later_batches_can_hold_block_earlier() -> None:
    """P = 1, max_staleness 2. Three groups born at 0 are due at 2; at version 0 at most two of them may stay
    behind."""
    ledger = ledger_of(replace(TWO_PER_STEP, prompts_per_step=1, max_staleness=2))
    first, second, third = lease(ledger, 9)
    assert ledger.capacity() == 0
    score(ledger, third)
    assert take(ledger, 1) == (2,)
    commit_step(ledger, 1)
    score(ledger, *lease(ledger, 1))  # born at 1, due at 3
    assert take(ledger, 2) is None  # the batch of version 2 cannot hold both groups 0 and 1
    score(ledger, second)
    assert take(ledger, 2) == (1,)


MEETABLE = [([], 0), ([0], 0), ([1, 0, 1], 0), ([3, 3, 2, 2], 2)]
UNMEETABLE = [
    ([0, 0, 0], 0, 0),
    ([1, 1, 1], 1, 1),
    ([3, 3, 3, 2, 2], 2, 3),
    ([3, 2, 2, 2], 2, 2),
    ([1], 2, 1),
]


@pytest.mark.parametrize(
    ("dues", "version", "unmeetable"), [*((dues, version, None) for dues, version in MEETABLE), *UNMEETABLE]
)
def test_with_two_per_step_the_ith_due_group_leaves_at_version_plus_i_halves(
    dues: list[int], version: int, unmeetable: int | None
) -> None:
    assert first_unmeetable(Counter(dues), version, prompts_per_step=2) == unmeetable


def test_what_can_be_met_keeps_as_many_groups_as_possible() -> None:
    assert meetable([(0, 10), (1, 11), (1, 12), (1, 13), (1, 14), (2, 15)], 0, prompts_per_step=2) == {
        10,
        11,
        12,
        13,
        15,
    }


def test_the_same_step_gets_the_same_batch_whatever_arrives_in_between() -> None:
    ledger = ledger_of()
    leases = lease(ledger, 4)
    score(ledger, leases[2], leases[3])
    first = ledger.take(1)
    score(ledger, leases[0], leases[1])
    assert ledger.take(1) == first == ledger.take_present(1)


def test_groups_without_signal_are_replaced_at_most_max_refill_times_p_then_the_step_has_no_signal() -> None:
    ledger = ledger_of(SYNCHRONOUS)  # two replacements per step
    one, two = lease(ledger, 9)
    dull(ledger, one, two)
    assert ledger.take(1) is None
    three, four = lease(ledger, 9)
    score(ledger, three)
    dull(ledger, four)  # the third: it is not replaced
    assert lease(ledger, 9) == []
    for _ in range(2):
        with pytest.raises(
            NoSignal, match="step 1: 3 groups without signal were withheld, 1 of 2 groups are there"
        ):
            ledger.take(1)
    reservation = ledger.take_present(1)
    assert reservation is not None
    assert reservation.group_ids == (2,)
    assert lease(ledger, 9) == []  # a short batch keeps both places until it is committed
    commit_step(ledger, 1)
    assert len(lease(ledger, 9)) == 2


def test_groups_whose_judge_is_away_are_replaced_within_the_same_bound_and_the_error_says_so() -> None:
    ledger = ledger_of(SYNCHRONOUS)  # two replacements per step
    first, second = lease(ledger, 2)
    dull(ledger, first)
    assert ledger.withhold(second.key, JUDGE_UNREACHABLE) == "withheld"
    for each in lease(ledger, 2):
        ledger.withhold(each.key, JUDGE_UNREACHABLE)
    assert lease(ledger, 9) == []
    told = r"0 of 2 groups are there \(3 judge_unreachable, 1 low_signal\)"
    with pytest.raises(NoSignal, match=told) as raised:
        ledger.take(1)
    assert pickle.loads(pickle.dumps(raised.value)).reasons == raised.value.reasons
    assert ledger.withheld_by_reason() == {"judge_unreachable": 3, "low_signal": 1}
    ledger.refill()
    assert len(lease(ledger, 9)) == 2


def test_groups_withheld_for_another_reason_are_replaced_without_end() -> None:
    ledger = ledger_of(SYNCHRONOUS)
    for _ in range(9):
        (only,) = lease(ledger, 1)
        assert ledger.withhold(only.key, "prompt_too_long") == "withheld"
    assert ledger.take(1) is None


def test_another_refill_lets_a_paused_step_go_on() -> None:
    ledger = ledger_of(SYNCHRONOUS)
    for _ in range(2):
        dull(ledger, *lease(ledger, 2))
    with pytest.raises(NoSignal):
        ledger.take(1)
    ledger.refill()
    assert ledger.take(1) is None
    assert len(lease(ledger, 9)) == 2


def test_taking_what_is_there_waits_for_groups_that_would_become_too_old() -> None:
    ledger = ledger_of(replace(SYNCHRONOUS, max_refill=0.0, prompts_per_step=3))
    one, two, three = lease(ledger, 3)
    dull(ledger, one)
    score(ledger, two)
    assert ledger.take_present(1) is None
    score(ledger, three)
    reservation = ledger.take_present(1)
    assert reservation is not None
    assert reservation.group_ids == (1, 2)


def test_a_batch_is_never_empty() -> None:
    ledger = ledger_of(replace(SYNCHRONOUS, max_refill=0.0))
    dull(ledger, *lease(ledger, 2))
    assert ledger.take_present(1) is None
    assert ledger.capacity() == 0
    ledger.refill()
    assert ledger.capacity() == 2


def test_missing_groups_are_requeued_and_the_next_take_fills_the_batch_up() -> None:
    ledger = ledger_of()
    zero, one, two = lease(ledger, 3)
    score(ledger, zero, one)
    assert take(ledger, 1) == (0, 1)
    assert ledger.requeue_missing(1, [1, 2, 99]) == [1]  # 2 and 99 are not in the batch
    assert ledger.requeue_missing(1, [1]) == []
    assert take(ledger, 1) is None
    score(ledger, two)
    assert take(ledger, 1) == (0, 2)
    assert lease(ledger, 1)[0].key == GroupKey(1, 2, 1)


def test_a_wait_says_what_it_waits_for() -> None:
    ledger = ledger_of()
    score(ledger, *lease(ledger, 1, "worker-0"))
    lease(ledger, 2, "worker-1")
    assert ledger.waiting_reason() == "1 of 2 groups scored; 2 leased to worker-1, 0 pending, room for 1 more"
    worker_died(ledger, "worker-1")
    assert (
        ledger.waiting_reason() == "1 of 2 groups scored; 0 leased to no worker, 2 pending, room for 3 more"
    )


def test_a_group_that_cannot_be_trained_on_is_withheld_and_another_takes_its_place() -> None:
    ledger = ledger_of()
    score(ledger, *lease(ledger, 3))
    assert take(ledger, 1) == (0, 1)
    assert ledger.withhold_unreadable(1, [1, 2]) == [1]  # 2 is not in the batch
    assert ledger.withheld_by_reason() == {"unreadable_record": 1}
    assert take(ledger, 1) == (0, 2)
    commit = commit_step(ledger, 1)
    assert commit is not None
    assert commit.withheld == ((1, "unreadable_record"),)


@pytest.mark.parametrize("method", ["requeue_missing", "withhold_unreadable"])
def test_a_learner_that_can_read_nothing_stops_the_run_and_one_that_reads_a_batch_starts_the_count_anew(
    method: str,
) -> None:
    ledger = ledger_of(replace(TWO_PER_STEP, steps=9))
    for step in (1, 2):
        for _ in range(UNREADABLE_BATCHES - 1):
            score(ledger, *lease(ledger, 2))
            batch = take(ledger, step)
            assert batch is not None
            getattr(ledger, method)(step, batch)
        score(ledger, *lease(ledger, 2))
        if step == 1:
            assert take(ledger, step) is not None
            commit_step(ledger, step)
    batch = take(ledger, 2)
    with pytest.raises(UnreadableGroups, match="could not read 10 batches in a row"):
        getattr(ledger, method)(2, batch)
