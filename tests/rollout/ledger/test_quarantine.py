"""Poison, worked by hand: who is suspected, who is leased beside whom, who is withheld, what a restart
remembers."""

from dataclasses import replace
from random import Random

from dynalign.rollout.ledger.log import encode
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.restore import restore
from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.ledger.values import (
    ATTEMPTS_PER_LEDGER,
    FAILED_ATTEMPTS,
    Break,
    Commit,
    LineageStart,
    Scored,
)
from tests.worlds.ledger_hand import (
    PROMPTS,
    TWO_PER_STEP,
    Drawn,
    Order,
    broken_by,
    commit_step,
    dull,
    expire,
    lease,
    ledger_of,
    quarantined,
    score,
    scored_group,
    train,
    worker_died,
    worker_left,
)

EIGHT = replace(TWO_PER_STEP, max_staleness=3)


class Endless:
    """Every draw is another prompt."""

    def at(self, draw: int) -> Drawn:
        return Drawn(draw, 0)


def drawn(
    ledger: Ledger, groups: int, worker: str = "worker-0", holds_other_leases: bool = False
) -> list[int]:
    return [each.group_id for each in ledger.leases.lease(worker, groups, 0.0, holds_other_leases)]


def test_each_group_in_the_hands_of_a_dead_worker_is_leased_again_alone_and_cleared_by_its_score() -> None:
    ledger = ledger_of(EIGHT)
    lease(ledger, 3)
    assert [(each.group_id, each.workers, each.poison) for each in worker_died(ledger, "worker-0")] == [
        (0, (), False),
        (1, (), False),
        (2, (), False),
    ]
    (zero,) = lease(ledger, 8, "b")
    assert (zero.group_id, ledger.leases.holds_quarantined("b")) == (0, True)
    assert drawn(ledger, 8, "b") == []
    score(ledger, zero)
    assert not ledger.leases.holds_quarantined("b")
    (one,) = lease(ledger, 8, "b")
    dull(ledger, one)  # a group without signal left its worker alive, too
    (two,) = lease(ledger, 8, "b")
    score(ledger, two)
    assert drawn(ledger, 3, "b") == [3, 4, 5]  # 5 is the prompt of 0, which is no suspect any more


def test_a_worker_with_something_in_hand_passes_a_suspect_over_only_while_another_has_one() -> None:
    ledger = ledger_of(EIGHT)
    lease(ledger, 2, "dying")
    assert drawn(ledger, 1, "b") == [2]
    assert drawn(ledger, 1, "c") == [3]
    worker_died(ledger, "dying")
    assert drawn(ledger, 8, "b") == []  # nobody tests 0 and 1: it is to run empty and do so
    worker_left(ledger, "c")
    assert drawn(ledger, 8, "c") == [0]
    assert drawn(ledger, 1, "b") == [3]  # given back by c; older than any new draw
    assert drawn(ledger, 1, "b") == [4]
    assert drawn(ledger, 8, "d") == [1]  # a worker with nothing in hand tests the next one
    assert ledger.state.pending == []


def test_a_worker_that_is_busy_with_other_work_gets_no_suspect() -> None:
    ledger = ledger_of(EIGHT)
    lease(ledger, 1)
    worker_died(ledger, "worker-0")
    assert drawn(ledger, 1, "b", holds_other_leases=True) == []
    assert drawn(ledger, 1, "b") == [0]


def test_a_new_draw_of_a_suspect_prompt_waits_for_an_empty_worker_too() -> None:
    ledger = ledger_of(replace(EIGHT, poison_attempts=1))
    lease(ledger, 1, "dying")
    assert worker_died(ledger, "dying")[0].poison
    assert drawn(ledger, 8, "b") == [1, 2, 3, 4]  # draw 5 is prompt 0 again
    assert drawn(ledger, 8, "c") == [5]
    assert drawn(ledger, 1, "b") == [6]


def test_poison_is_withheld_after_exactly_poison_attempts_deaths_with_the_workers_that_it_broke() -> None:
    ledger = ledger_of(EIGHT)
    beside = lease(ledger, 2, "a")[1]
    worker_died(ledger, "a")
    for worker in ("b", "c", "d"):
        assert drawn(ledger, 8, worker) == [0]
        (broke,) = worker_died(ledger, worker)
    assert broke == Break(0, 4, 1, prompt_index=0, workers=("b", "c", "d"), poison=True)
    assert ledger.withheld_by_reason() == {"poison": 1}
    assert drawn(ledger, 8, "e") == [beside.group_id]
    assert ledger.counts().requeued == 4
    score(ledger, *ledger.state.leased.values())
    assert ledger.withheld_by_reason() == {"poison": 1}


def test_the_next_epoch_gives_a_poisonous_prompt_one_worker_and_a_survivor_clears_it() -> None:
    ledger = ledger_of(replace(EIGHT, poison_attempts=2, steps=9))
    for worker in ("a", "b"):
        drawn(ledger, 1, worker)
        worker_died(ledger, worker)
    score(ledger, *lease(ledger, 4))
    for step in (1, 2):
        ledger.take(step)
        commit_step(ledger, step)
    assert drawn(ledger, 8, "c") == [PROMPTS]
    assert worker_died(ledger, "c")[0].workers == ("a", "b", "c")
    assert ledger.withheld_by_reason() == {"poison": 2}
    score(ledger, *lease(ledger, 4, "d"))
    (again,) = lease(ledger, 8, "d")
    assert again.group_id == 2 * PROMPTS
    score(ledger, again)
    assert 0 not in quarantined(ledger)


def test_a_prompt_that_two_workers_held_beside_a_poisonous_one_is_not_blamed() -> None:
    """Prompt 0 is poisonous; draws 0 and 5 are of it. Draws 1 and 6 are of prompt 1, which is innocent."""
    ledger = ledger_of(replace(EIGHT, poison_attempts=2))
    assert drawn(ledger, 5, "a") == [0, 1, 2, 3, 4]
    assert drawn(ledger, 2, "b") == [5, 6]
    for worker in ("a", "b"):
        assert [each.workers for each in worker_died(ledger, worker)] == [()] * (5 if worker == "a" else 2)
    assert drawn(ledger, 8, "c") == [0]
    worker_died(ledger, "c")
    assert drawn(ledger, 8, "d") == [0]
    assert worker_died(ledger, "d")[0].poison
    assert drawn(ledger, 8, "e") == [1]
    assert [each.poison for each in worker_died(ledger, "e")] == [
        False
    ]  # its node failed: the first death alone
    assert ledger.withheld_by_reason() == {"poison": 1}


def test_a_lease_that_was_granted_beside_others_does_not_count_as_alone_when_these_have_ended() -> None:
    ledger = ledger_of(EIGHT)
    zero, _ = lease(ledger, 2, "a")
    score(ledger, zero)
    assert worker_died(ledger, "a")[0].workers == ()


def test_a_lease_of_a_worker_that_works_on_something_else_is_not_alone() -> None:
    ledger = ledger_of(EIGHT)
    assert drawn(ledger, 1, "a", holds_other_leases=True) == [0]
    assert worker_died(ledger, "a")[0].workers == ()


def test_a_worker_that_leaves_breaks_nothing_however_often() -> None:
    ledger = ledger_of()
    for attempt in range(1, 3 * FAILED_ATTEMPTS):
        (only,) = lease(ledger, 1)
        assert (only.group_id, only.attempt) == (0, attempt)
        assert worker_left(ledger, "worker-0") == [0]
    assert drawn(ledger, 2) == [0, 1]  # no suspect: side by side
    assert ledger.withheld_by_reason() == {}


def test_attempts_of_one_ledger_end_where_those_of_the_next_begin() -> None:
    ledger = ledger_of()
    for _ in range(ATTEMPTS_PER_LEDGER):
        assert drawn(ledger, 1) == [0]
        worker_left(ledger, "worker-0")
    assert ledger.withheld_by_reason() == {"attempts_exhausted": 1}


def test_an_expired_lease_is_no_break_and_clears_none() -> None:
    ledger = ledger_of()
    lease(ledger, 1)
    worker_died(ledger, "worker-0")
    lease(ledger, 1)
    assert expire(ledger, now_s=10.0) == [0]
    assert broken_by(ledger, 0) == ("worker-0",)
    assert drawn(ledger, 8, "b") == [0]


def test_a_late_report_of_a_worker_that_was_taken_for_dead_clears_nothing() -> None:
    ledger = ledger_of()
    (old,) = lease(ledger, 1)
    worker_died(ledger, "worker-0")
    assert ledger.report(scored_group(old, 0, 0)) == "late"
    assert drawn(ledger, 8, "b") == [0]


def test_breaks_are_remembered_by_the_log_over_a_restart_and_a_rollback_until_the_prompt_is_scored() -> None:
    ledger = ledger_of()
    train(ledger, 1)
    snapshot = pack(ledger.state, lineage=1)
    lines: list[LogLine] = [LineageStart(1, 0, 0), Commit(1, 1, (0, 1), ())]
    lease(ledger, 2, "a")
    lines += worker_died(ledger, "a")
    restarted = restore(TWO_PER_STEP, Order(), snapshot, lines, {}, lineage=1)
    lines.append(LineageStart(1, 1, 1))
    assert [(prompt in quarantined(restarted), broken_by(restarted, prompt)) for prompt in (2, 3)] == [
        (True, ())
    ] * 2
    assert drawn(restarted, 8, "b") == [2]
    lines += worker_died(restarted, "b")
    (two,), (three,) = lease(restarted, 8, "c"), lease(restarted, 8, "d")
    score(restarted, three)
    lines.append(Scored(scored_group(three, 1, 1), 1))

    rolled_back = restore(TWO_PER_STEP, Order(), snapshot, lines, {}, lineage=2)
    assert rolled_back.counts().rolled_back == 1  # group 3; a break is no progress
    assert (quarantined(rolled_back), broken_by(rolled_back, 2)) == ({2}, ("b",))
    for worker in ("e", "f"):
        assert drawn(rolled_back, 8, worker) == [two.group_id]
        (broke,) = worker_died(rolled_back, worker)
    assert broke.poison


def test_a_break_is_a_line_of_the_log() -> None:
    assert encode(Break(7, 2, 1, 4, ("a", "b"), poison=False)) == (
        b'{"attempt":2,"format":1,"group_id":7,"kind":"break","lineage":1,"poison":false,"prompt_index":4,"workers":["a","b"],'
        b'"checksum":"bc0c5e44"}\n'
    )


def test_workers_that_are_never_idle_by_themselves_come_to_every_suspect() -> None:
    """Each fills its three places again after every group.

    Without the rule that they run empty, the suspects would wait for ever.
    """
    random = Random(3)
    ledger = Ledger(
        replace(TWO_PER_STEP, prompts_per_step=4, steps=100, max_staleness=4),
        Endless(),
        lineage=1,
    )
    workers = ["a", "b", "c"]
    held = {worker: lease(ledger, 3, worker) for worker in workers}
    suspects = {each.group_id for each in held["a"]}
    worker_died(ledger, "a")
    held["a"], scored, groups = [], [], 0
    while suspects - set(scored):
        worker = random.choice(["b", "c"])  # a is not replaced
        held[worker] += lease(ledger, 3 - len(held[worker]), worker)
        if held[worker]:
            done = held[worker].pop(0)
            score(ledger, done)
            scored.append(done.group_id)
        step = ledger.state.version + 1
        if ledger.take(step):
            commit_step(ledger, step)
        groups += 1
        assert groups < 40
