import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.score_health import score_length_correlation, score_saturation_fraction

scores = st.floats(0, 5)


def test_saturation_counts_parsed_scores_at_either_end() -> None:
    assert score_saturation_fraction([0, 0.1, 0.11, 2.5, 4.89, 4.9, 5, None]) == pytest.approx(4 / 7)
    assert score_saturation_fraction([2.0]) == 0.0
    assert score_saturation_fraction([None]) is None


def test_score_and_length_correlate_as_worked_by_hand() -> None:
    # Deviations -1 0 1 and -1 1 0: covariance 1, squares 2 and 2.
    assert score_length_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert score_length_correlation([1, 2, None, 3], [10, 30, 99, 20]) == pytest.approx(0.5)


def test_scores_and_lengths_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_length_correlation([1, 2], [1])


def test_correlation_is_undefined_where_nothing_varies() -> None:
    assert score_length_correlation([0.1, 0.1, 0.1], [1, 2, 3]) is None
    assert score_length_correlation([1, 2, 3], [7, 7, 7]) is None
    assert score_length_correlation([1.0, None], [7, 8]) is None
    assert score_length_correlation([], []) is None


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True), st.floats(0.001, 1))
def test_scores_linear_in_length_correlate_perfectly(lengths: list[int], slope: float) -> None:
    rising = score_length_correlation([slope * length for length in lengths], lengths)
    falling = score_length_correlation([5 - slope * length for length in lengths], lengths)
    assert rising == pytest.approx(1)
    assert falling == pytest.approx(-1)


@given(st.lists(st.tuples(scores, st.integers(0, 100)), max_size=20))
def test_correlation_lies_between_minus_one_and_one(pairs: list[tuple[float, int]]) -> None:
    correlation = score_length_correlation([score for score, _ in pairs], [length for _, length in pairs])
    assert correlation is None or -1 <= correlation <= 1
