import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.score_health import (
    advantage_reliability,
    correlation,
    score_saturation_fraction,
    within_group_correlation,
    within_group_variance,
)

scores = st.floats(0, 5)


def test_saturation_counts_parsed_scores_at_either_end() -> None:
    assert score_saturation_fraction([0, 0.1, 0.11, 2.5, 4.89, 4.9, 5, None]) == pytest.approx(4 / 7)
    assert score_saturation_fraction([2.0]) == 0.0
    assert score_saturation_fraction([None]) is None


def test_score_and_length_correlate_as_worked_by_hand() -> None:
    # Deviations -1 0 1 and -1 1 0: covariance 1, squares 2 and 2.
    assert correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert correlation([1, 2, None, 3], [10, 30, 99, 20]) == pytest.approx(0.5)


def test_scores_and_lengths_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        correlation([1, 2], [1])


def test_correlation_is_undefined_where_nothing_varies() -> None:
    assert correlation([0.1, 0.1, 0.1], [1, 2, 3]) is None
    assert correlation([1, 2, 3], [7, 7, 7]) is None
    assert correlation([1.0, None], [7, 8]) is None
    assert correlation([], []) is None


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True), st.floats(0.001, 1))
def test_scores_linear_in_length_correlate_perfectly(lengths: list[int], slope: float) -> None:
    rising = correlation([slope * length for length in lengths], lengths)
    falling = correlation([5 - slope * length for length in lengths], lengths)
    assert rising == pytest.approx(1)
    assert falling == pytest.approx(-1)


@given(st.lists(st.tuples(scores, st.integers(0, 100)), max_size=20))
def test_correlation_lies_between_minus_one_and_one(pairs: list[tuple[float, int]]) -> None:
    found = correlation([score for score, _ in pairs], [length for _, length in pairs])
    assert found is None or -1 <= found <= 1


def test_within_groups_only_deviations_from_the_groups_means_count() -> None:
    # In each group the higher score is the shorter answer, though the group of longer ones scores higher.
    scores_PG = [[1.0, 2.0], [3.0, 4.0]]
    lengths_PG = [[20, 10], [80, 70]]
    assert within_group_correlation(scores_PG, lengths_PG) == pytest.approx(-1.0)
    pooled = correlation([1.0, 2.0, 3.0, 4.0], [20, 10, 80, 70])
    assert pooled is not None
    assert pooled > 0.8


def test_what_is_missing_on_one_side_is_left_out_and_a_constant_group_adds_nothing() -> None:
    assert within_group_correlation([[1.0, 3.0, None], [2.0, 2.0]], [[1, 2, 9], [5, 7]]) == pytest.approx(
        2 / (2 * 2.5) ** 0.5 * 0.5
    )
    assert within_group_correlation([[0.1, 0.1, 0.1], [4.0]], [[1, 2, 3], [9]]) is None
    assert within_group_correlation([], []) is None


def test_variance_is_pooled_over_groups_by_their_degrees_of_freedom() -> None:
    assert within_group_variance([[1.0, 3.0], [0.0, 0.0, 3.0], [4.0], [None]]) == pytest.approx(8 / 3)
    assert within_group_variance([[1.0], [None, 2.0]]) is None


def test_reliability_is_the_share_of_the_variance_that_is_not_noise() -> None:
    assert advantage_reliability(1.0, 0.5, None) == pytest.approx(0.75)
    # Half of the groups differ by noise alone: 0.5 * 1 + 0.5 * 0.25.
    assert advantage_reliability(1.0, 0.5, 0.5) == pytest.approx(1 - 0.25 / 0.625)
    assert advantage_reliability(1.0, 0.0, 0.3) == 1.0


def test_reliability_is_unknown_without_variance_or_noise() -> None:
    assert advantage_reliability(None, 0.5, 0.0) is None
    assert advantage_reliability(1.0, None, 0.0) is None
    assert advantage_reliability(0.0, 0.0, 0.0) is None
