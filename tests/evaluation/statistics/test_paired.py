"""Changes between two judgements of the same, by hand."""

import pytest
from scipy import stats

from dynalign.evaluation.statistics.paired import (
    Flips,
    change,
    label_flips,
    mcnemar_p,
    position_bias,
)


def test_the_size_of_a_change_is_not_its_shift() -> None:
    found = change([1.0, 2.0, 3.0, None], [2.0, 1.0, 3.0, 4.0], "abcd")
    assert found.size is not None
    assert found.shift is not None
    assert found.size.mean == pytest.approx(2 / 3)
    assert found.shift.mean == 0
    assert (found.pairs, found.size.n) == (3, 3)
    assert found.shift.low == pytest.approx(-4.303 / 3**0.5, abs=1e-3)  # std 1


def test_changes_within_one_prompt_are_one_part_of_the_interval() -> None:
    found = change([0.0] * 4, [1.0, 1.0, 0.0, 0.0], "aabb")
    assert found.size is not None
    assert (found.size.mean, found.size.n) == (0.5, 2)


def test_flips_are_counted_by_direction() -> None:
    assert label_flips([3, 3, 2, 5, None], [4, 3, 1, 2, 1]) == Flips(1, 2, 4, 1.0)
    assert label_flips([3, 3], [4, 3]).share == 0.5
    assert label_flips([], []).share is None


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (8, 0), (2, 9), (30, 12)])
def test_mcnemars_probability_is_that_of_scipys_binomial_test(up: int, down: int) -> None:
    expected = stats.binomtest(up, up + down, 0.5).pvalue if up + down else 1.0
    assert mcnemar_p(up, down) == pytest.approx(expected)


def test_a_judge_that_always_says_first_wins_half_and_has_a_bias_of_half() -> None:
    found = position_bias([1.0] * 20, [0.0] * 20)
    assert found.bias is not None
    assert (found.bias.mean, found.bias.low, found.bias.high) == (0.5, 0.5, 0.5)
    assert (found.win_rate, found.flips, found.pairs) == (0.5, 20, 20)


def test_a_judge_that_sees_no_order_has_no_bias_whoever_wins() -> None:
    found = position_bias([1.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.5, 1.0], clusters="aabb")
    assert found.bias is not None
    assert (found.bias.mean, found.bias.n) == (0, 2)
    assert (found.win_rate, found.flips) == (0.625, 0)
    assert position_bias([], []).bias is None
