"""Restores worked by hand: the cut at a checkpoint, a ledger that died alone, a finished run that goes on."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from dynalign.configs.errors import CheckpointError, RecordError, StaleLineage
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.restore import opening, restore
from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.ledger.values import (
    ATTEMPTS_PER_LEDGER,
    Commit,
    Counts,
    GroupKey,
    LineageStart,
    Scored,
)
from dynalign.run_folder.spool import SpoolEntry
from tests.worlds.ledger_hand import (
    TWO_PER_STEP,
    Order,
    commit_step,
    dull,
    lease,
    ledger_of,
    score,
    scored_group,
    take,
    train,
    worker_left,
)

FIRST = LineageStart(lineage=1, step=0, parent=0)


def spool_of(ledger: Ledger) -> dict[str, SpoolEntry]:
    groups = [scored.group for scored in ledger.state.scored.values()]
    return {group.entry.name: group.entry for group in groups}


def snapshot_of(ledger: Ledger) -> dict[str, Any]:
    """Through msgpack, as a checkpoint keeps it."""
    snapshot: dict[str, Any] = msgpack.unpackb(msgpack.packb(pack(ledger.state, ledger.lineage)))
    return snapshot


def test_a_new_lineage_starts_from_the_cut_at_the_checkpoint() -> None:
    before = ledger_of()
    train(before, 1)
    two, three, four = lease(before, 3)
    dull(before, two)
    score(before, three)
    lease(before, 2, "dying")
    worker_left(before, "dying")
    assert before.counts() == Counts(7, 2, 1, 1, 2, 1, 2, 0, 0)
    snapshot = snapshot_of(before)

    ledger = restore(
        TWO_PER_STEP, Order(), snapshot, [FIRST, Commit(1, 1, (0, 1), ())], spool_of(before), lineage=2
    )
    assert ledger.counts() == Counts(7, 3, 0, 1, 2, 1, 3, 0, 0)  # what was leased is pending, and counted
    assert ledger.withheld_by_reason() == {"low_signal": 1}
    assert ledger.report(scored_group(four, 1, 1)) == "late"
    assert ledger.capacity() == 3
    assert [each.key for each in lease(ledger, 9)] == [GroupKey(group_id, 1, 2) for group_id in (4, 5, 6)]


def test_commits_after_the_checkpoint_are_rolled_back_and_drawn_again_with_the_same_numbers() -> None:
    before = ledger_of()
    train(before, 1)
    snapshot = snapshot_of(before)
    (dull_one,) = lease(before, 1)
    dull(before, dull_one)
    lines: list[LogLine] = [FIRST, Commit(1, 1, (0, 1), ())]
    score(before, *lease(before, 2))
    lines += list(before.state.scored.values())
    assert take(before, 2) == (3, 4)
    second = commit_step(before, 2)
    assert second == Commit(2, 1, (3, 4), ((2, "low_signal"),))
    lines.append(second)

    ledger = restore(TWO_PER_STEP, Order(), snapshot, lines, {}, lineage=2)
    assert ledger.counts() == Counts(2, 0, 0, 0, 2, 0, 0, 0, rolled_back=3)
    assert opening(ledger, snapshot, lines) == LineageStart(2, 1, parent=1)
    assert [(each.group_id, each.prompt_index, each.lineage) for each in lease(ledger, 2)] == [
        (2, 2, 2),
        (3, 3, 2),
    ]


def test_without_a_checkpoint_a_new_lineage_starts_from_nothing() -> None:
    ledger = restore(TWO_PER_STEP, Order(), None, [FIRST, Commit(1, 1, (0, 1), ())], {}, lineage=2)
    assert ledger.counts() == Counts(0, 0, 0, 0, 0, 0, 0, 0, rolled_back=2)
    assert opening(ledger, None, [FIRST]) == LineageStart(2, 0, parent=0)


def test_a_scored_group_is_kept_only_if_its_file_is_whole() -> None:
    before = ledger_of()
    score(before, *lease(before, 3))
    zero, one, two = spool_of(before).values()
    damaged = {zero.name: zero, one.name: replace(one, checksum="0")}
    ledger = restore(TWO_PER_STEP, Order(), snapshot_of(before), [FIRST], damaged, lineage=2)
    assert (list(ledger.state.scored), ledger.state.pending) == ([0], [1, 2])


def test_a_scored_group_with_tokens_of_an_abandoned_version_is_generated_again() -> None:
    before = ledger_of()
    zero, one = lease(before, 2)
    before.report(scored_group(zero, 0, 0))
    before.report(scored_group(one, 0, 1))
    ledger = restore(TWO_PER_STEP, Order(), snapshot_of(before), [FIRST], spool_of(before), lineage=2)
    assert (list(ledger.state.scored), ledger.state.pending) == ([0], [1])


def test_scored_groups_that_a_smaller_staleness_cannot_meet_any_more_are_born_anew() -> None:
    before = ledger_of()
    score(before, *lease(before, 4))
    before.take(1)
    commit_step(before, 1)  # 2 and 3 are one version old
    synchronous = replace(TWO_PER_STEP, max_staleness=0)
    ledger = restore(synchronous, Order(), snapshot_of(before), [FIRST], spool_of(before), lineage=2)
    assert (list(ledger.state.scored), ledger.state.pending) == ([], [2, 3])


def test_a_ledger_that_died_alone_is_checkpoint_and_log() -> None:
    before = ledger_of()
    lines: list[LogLine] = [FIRST]
    zero, one, two, three = lease(before, 4)
    dull(before, zero)
    score(before, one, two)
    lines += list(before.state.scored.values())
    before.take(1)
    commit = commit_step(before, 1)
    assert commit is not None
    lines.append(commit)
    score(before, three, *lease(before, 1))
    lines += list(before.state.scored.values())
    spool = spool_of(before)
    (five,) = lease(before, 1)

    ledger = restore(TWO_PER_STEP, Order(), None, lines, spool, lineage=1)
    assert ledger.counts() == Counts(
        5, 0, 0, 2, 2, 1, 0, 0, 0
    )  # the lease of 5 left no trace: it is drawn again
    assert opening(ledger, None, lines) == LineageStart(1, 1, parent=1)
    assert commit_step(ledger, 1, (1, 2)) is None
    assert ledger.report(before.state.scored[3].group) == "repeated"
    (again,) = lease(ledger, 1)
    assert (again.group_id, again.attempt) == (
        5,
        1 + ATTEMPTS_PER_LEDGER,
    )  # above every attempt that the dead ledger may have given
    assert ledger.report(scored_group(five, 1, 1)) == "late"
    assert take(ledger, 2) == (3, 4)


def test_a_draw_between_two_that_are_known_is_pending_after_the_ledger_died_alone() -> None:
    before = ledger_of()
    _, one, two = lease(before, 3)
    score(before, one, two)
    lines: list[LogLine] = [FIRST, *before.state.scored.values()]
    ledger = restore(TWO_PER_STEP, Order(), None, lines, spool_of(before), lineage=1)
    assert (ledger.state.pending, list(ledger.state.scored)) == ([0], [1, 2])


def test_a_restored_run_leases_no_burst() -> None:
    before = ledger_of()
    score(before, *lease(before, 4)[:3])
    ledger = restore(TWO_PER_STEP, Order(), snapshot_of(before), [FIRST], spool_of(before), lineage=2)
    assert ledger.capacity() == 1


def test_a_finished_run_goes_on_with_more_steps_and_keeps_what_it_withheld_at_its_end() -> None:
    before = ledger_of(replace(TWO_PER_STEP, steps=1))
    train(before, 1)
    before.end()
    finished = snapshot_of(before)
    same = restore(replace(TWO_PER_STEP, steps=1), Order(), finished, [FIRST], {}, lineage=2)
    assert (same.state.ended, same.capacity()) == (True, 0)
    more = restore(TWO_PER_STEP, Order(), finished, [FIRST], {}, lineage=2)
    assert (more.state.ended, more.capacity()) == (False, 4)

    stopped = ledger_of()
    train(stopped, 1)
    lease(stopped, 2)
    stopped.end()
    again = restore(TWO_PER_STEP, Order(), snapshot_of(stopped), [FIRST], {}, lineage=2)
    assert again.withheld_by_reason() == {"run_ended": 2}
    assert lease(again, 1)[0].group_id == 4


def test_a_lineage_older_than_log_or_checkpoint_is_refused() -> None:
    snapshot = snapshot_of(restore(TWO_PER_STEP, Order(), None, [], {}, lineage=4))
    with pytest.raises(StaleLineage):
        restore(TWO_PER_STEP, Order(), snapshot, [], {}, lineage=3)
    with pytest.raises(StaleLineage):
        restore(TWO_PER_STEP, Order(), None, [LineageStart(5, 0, 0)], {}, lineage=4)


def test_a_log_that_leaves_out_a_step_is_refused() -> None:
    with pytest.raises(RecordError, match="commits step 2 after step 0"):
        restore(TWO_PER_STEP, Order(), None, [FIRST, Commit(2, 1, (0, 1), ())], {}, lineage=1)


def test_a_log_that_trains_a_group_twice_is_refused() -> None:
    with pytest.raises(CheckpointError, match="group 1, which was trained before"):
        restore(
            TWO_PER_STEP,
            Order(),
            None,
            [FIRST, Commit(1, 1, (0, 1), ()), Commit(2, 1, (1, 2), ())],
            {},
            lineage=1,
        )


@pytest.mark.parametrize(
    "damage", [{"format": 2}, {"issued": 9}, {"scored": [[0, 1]]}, {"withheld": None}, {"lineage": "x"}]
)
def test_a_damaged_or_unknown_snapshot_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="snapshot"):
        restore(TWO_PER_STEP, Order(), snapshot_of(ledger_of()) | damage, [], {}, lineage=2)


def test_a_scored_group_survives_the_snapshot_unchanged() -> None:
    before = ledger_of()
    score(before, *lease(before, 2))
    ledger = restore(TWO_PER_STEP, Order(), snapshot_of(before), [FIRST], spool_of(before), lineage=2)
    assert ledger.state.scored == before.state.scored
    assert all(isinstance(scored, Scored) for scored in ledger.state.scored.values())
