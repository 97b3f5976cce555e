"""Packing: every sequence once, no row too long, all ranks in step, costs even."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.rows.packing import LINEAR_TOKENS, minibatches, pack

BUDGET = 64
lengths = st.lists(st.integers(1, BUDGET), max_size=40)
ranks = st.integers(1, 5)


def cost(row: list[int], lengths_N: list[int]) -> int:
    return sum(lengths_N[sequence] * (lengths_N[sequence] + LINEAR_TOKENS) for sequence in row)


@given(lengths, ranks)
def test_every_sequence_stands_in_exactly_one_row(lengths_N: list[int], rank_count: int) -> None:
    placed = [sequence for rows in pack(lengths_N, BUDGET, rank_count) for row in rows for sequence in row]
    assert sorted(placed) == list(range(len(lengths_N)))


@given(lengths, ranks)
def test_no_row_exceeds_the_budget(lengths_N: list[int], rank_count: int) -> None:
    rows = [row for rows in pack(lengths_N, BUDGET, rank_count) for row in rows]
    assert all(sum(lengths_N[sequence] for sequence in row) <= BUDGET for row in rows)


@given(lengths, ranks)
def test_every_rank_has_the_same_number_of_rows(lengths_N: list[int], rank_count: int) -> None:
    plan = pack(lengths_N, BUDGET, rank_count)
    assert len(plan) == rank_count
    assert len({len(rows) for rows in plan}) == 1


@given(lengths, ranks)
def test_rows_are_at_most_twice_as_many_as_needed(lengths_N: list[int], rank_count: int) -> None:
    # Best fit opens a row only if the sequence fits no other: any two rows together exceed the budget.
    needed = 2 * sum(lengths_N) / BUDGET + 1
    assert sum(len(rows) for rows in pack(lengths_N, BUDGET, rank_count)) < needed + rank_count


@given(lengths, ranks)
def test_ranks_differ_by_no_more_than_the_dearest_row(lengths_N: list[int], rank_count: int) -> None:
    plan = pack(lengths_N, BUDGET, rank_count)
    loads = [sum(cost(row, lengths_N) for row in rows) for rows in plan]
    assert max(loads) - min(loads) <= max((cost(row, lengths_N) for rows in plan for row in rows), default=0)


@given(lengths, ranks)
def test_rows_that_run_side_by_side_are_neighbours_in_cost(lengths_N: list[int], rank_count: int) -> None:
    # Turn after turn, no rank's row is dearer than any row of the turn before.
    turns = [
        [cost(row, lengths_N) for row in turn]
        for turn in zip(*pack(lengths_N, BUDGET, rank_count), strict=True)
    ]
    assert all(min(before) >= max(after) for before, after in pairwise(turns))


@given(lengths, ranks)
def test_the_plan_is_a_pure_function_of_the_lengths(lengths_N: list[int], rank_count: int) -> None:
    assert pack(lengths_N, BUDGET, rank_count) == pack(tuple(lengths_N), BUDGET, rank_count)


def test_a_batch_that_fits_one_row_is_still_shared_by_all_ranks() -> None:
    assert [[len(row) for row in rows] for rows in pack([10] * 8, 1000, 2)] == [[4], [4]]


def test_fewer_sequences_than_ranks_leave_empty_rows_that_keep_collectives_in_step() -> None:
    assert pack([30, 20], 64, 3) == [[[0]], [[1]], [[]]]


def test_rows_are_evened_out_where_the_budget_allows() -> None:
    # Two rows are needed; best fit alone would fill them 9 + 1 and 5 + 5, or the like: here both hold 10.
    assert sorted(sorted(row) for row in pack([9, 5, 5, 1], 12, 1)[0]) == [[0, 3], [1, 2]]


def test_tight_rows_keep_the_best_fit() -> None:
    # 6+4 and 5+3+2 fill two rows of 10; evening out would put 6+3 and 5+4, and the 2 would fit nowhere.
    assert sorted(sorted(row) for row in pack([6, 5, 4, 3, 2], 10, 1)[0]) == [[0, 2], [1, 3, 4]]


def test_a_row_passed_over_for_a_long_sequence_still_takes_a_short_one() -> None:
    # 12 | 9+6 of 16; the second is a little cheaper, has no room for the 2, and then exactly room for the 1.
    lengths_N = [12_000, 9_000, 6_000, 2_000, 1_000]
    assert sorted(sorted(row) for row in pack(lengths_N, 16_000, 1)[0]) == [[0, 3], [1, 2, 4]]


def test_the_rank_that_had_the_dearer_row_gets_the_cheaper_one_next() -> None:
    # Four rows of one sequence each: 10 + 6 against 9 + 8.
    assert pack([10, 9, 8, 6], 10, 2) == [[[0], [3]], [[1], [2]]]


def test_a_long_sequence_costs_more_than_short_ones_of_the_same_sum() -> None:
    # Per rank: 20,000 tokens against 10,000 + 10,000; attention makes the single one the dearer, so the last
    # goes to the other.
    plan = pack([20_000, 10_000, 10_000, 2_000], 22_000, 2)
    assert plan == [[[0]], [[1, 2, 3]]]


def test_no_sequences_are_no_rows() -> None:
    assert pack([], 10, 2) == [[], []]


def test_a_sequence_longer_than_a_row_is_refused_with_both_figures() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 11 tokens; a row holds 1 to 10"):
        pack([3, 11], 10, 1)


def test_a_sequence_without_tokens_and_a_plan_without_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence 0 has 0 tokens"):
        pack([0], 10, 1)
    with pytest.raises(ValueError, match="at least one rank"):
        pack([1], 10, 0)


def test_minibatches_are_consecutive_and_as_equal_as_can_be() -> None:
    assert minibatches(5, 2) == [range(0, 2), range(2, 5)]
    assert minibatches(4, 1) == [range(0, 4)]


@given(st.integers(1, 50), st.data())
def test_minibatches_hold_every_group_once(groups_count: int, data: st.DataObject) -> None:
    parts = minibatches(groups_count, data.draw(st.integers(1, groups_count)))
    assert [group for part in parts for group in part] == list(range(groups_count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [0, 4])
def test_minibatches_without_a_group_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="3 groups cannot be cut"):
        minibatches(3, count)
