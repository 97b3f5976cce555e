"""Advantages: numbers worked by hand, the oracle, and the properties that GRPO's baseline has to have."""

from math import sqrt
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.advantages import batch_std, group_advantages
from tests.worlds.oracle import advantages as oracle_advantages

SCALES: tuple[Literal["group", "batch", "none"], ...] = ("group", "batch", "none")
scores = st.floats(0, 5).map(lambda score: round(score, 3))
groups = st.lists(st.none() | scores, min_size=1, max_size=16)
parsed_groups = st.lists(scores, min_size=2, max_size=16)


def test_four_scores_worked_by_hand() -> None:
    # mean 2.5; deviations -1.5 -0.5 0.5 1.5; std = sqrt(5 / 3) = 1.2909944, plus 1e-4 = 1.2910944
    assert group_advantages([1, 2, 3, 4], "group") == pytest.approx(
        [-1.1618050, -0.3872683, 0.3872683, 1.1618050], abs=1e-7
    )
    assert group_advantages([1, 2, 3, 4], "none") == [-1.5, -0.5, 0.5, 1.5]
    assert group_advantages([1, 2, 3, 4], "batch", batch_std=0.4999) == pytest.approx([-3, -1, 1, 3])


def test_the_batch_std_is_of_all_parsed_scores_about_their_common_mean() -> None:
    # 1 3 | 5 and an unparsed one: mean 3, squares 4 + 0 + 4, divided by 2
    assert batch_std([[1, 3], [5, None]]) == 2.0
    assert batch_std([[4.0], [None]]) == 0.0


def test_an_unparsed_candidate_has_advantage_zero_and_does_not_move_the_baseline() -> None:
    # 0 and 2 around 1, std sqrt(2)
    assert group_advantages([0, None, 2], "group") == pytest.approx(
        [-1 / (sqrt(2) + 1e-4), 0, 1 / (sqrt(2) + 1e-4)]
    )
    assert group_advantages([0, None, 2], "none") == [-1, 0, 1]


@pytest.mark.parametrize("scale", SCALES)
def test_fewer_than_two_parsed_candidates_teach_nothing(scale: Literal["group", "batch", "none"]) -> None:
    assert group_advantages([None, 4.0, None], scale, batch_std=1.0) == [0, 0, 0]
    assert group_advantages([None, None], scale, batch_std=1.0) == [0, 0]
    assert group_advantages([], scale, batch_std=1.0) == []


@given(scores, st.integers(2, 16), st.sampled_from(SCALES))
def test_a_group_with_equal_scores_has_exactly_zero_advantage(
    score: float, size: int, scale: Literal["group", "batch", "none"]
) -> None:
    assert group_advantages([score] * size, scale, batch_std=0.0) == [0.0] * size


@given(st.lists(groups, min_size=1, max_size=5), st.sampled_from(SCALES))
def test_advantages_agree_with_the_oracle(
    scores_PG: list[list[float | None]], scale: Literal["group", "batch", "none"]
) -> None:
    ours = [group_advantages(scores_G, scale, batch_std(scores_PG)) for scores_G in scores_PG]
    for advantages, expected in zip(ours, oracle_advantages(scores_PG, scale), strict=True):
        assert advantages == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(parsed_groups, st.sampled_from([-2.5, 0.125, 64.0]))
def test_shifting_every_score_changes_nothing(scores_G: list[float], shift: float) -> None:
    shifted = [score + shift for score in scores_G]
    assert group_advantages(shifted, "group") == pytest.approx(group_advantages(scores_G, "group"), abs=1e-8)


@given(parsed_groups, st.floats(0.1, 10))
def test_without_division_advantages_scale_with_the_scores_and_with_it_they_do_not(
    scores_G: list[float], factor: float
) -> None:
    scaled = [factor * score for score in scores_G]
    assert group_advantages(scaled, "none") == pytest.approx(
        [factor * a for a in group_advantages(scores_G, "none")], abs=1e-9
    )
    deviation = batch_std([scores_G])
    # (k·dev) / (k·std + 1e-4): the floor is all that is left of the factor
    expected = [
        a * (deviation + 1e-4) / (deviation + 1e-4 / factor) for a in group_advantages(scores_G, "group")
    ]
    assert group_advantages(scaled, "group") == pytest.approx(expected, abs=1e-8)


@given(st.data())
def test_permuting_candidates_permutes_their_advantages(data: st.DataObject) -> None:
    scores_G = data.draw(groups)
    order = data.draw(st.permutations(range(len(scores_G))))
    advantages = group_advantages(scores_G, "group")
    assert group_advantages([scores_G[i] for i in order], "group") == [advantages[i] for i in order]


@given(groups)
def test_advantages_of_a_group_sum_to_zero(scores_G: list[float | None]) -> None:
    assert sum(group_advantages(scores_G, "group")) == pytest.approx(0, abs=1e-9)
    assert sum(group_advantages(scores_G, "none")) == pytest.approx(0, abs=1e-12)


@given(parsed_groups)
def test_no_candidate_can_weigh_more_than_the_lone_outlier(scores_G: list[float]) -> None:
    # One of n differs: its deviation is (n - 1)/n of the difference, the std difference/sqrt(n).
    bound = (len(scores_G) - 1) / sqrt(len(scores_G))
    assert max(map(abs, group_advantages(scores_G, "group"))) <= bound + 1e-9


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_instead_of_spreading(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        group_advantages([1.0, score], "group")
    with pytest.raises(ValueError, match="finite"):
        batch_std([[1.0], [score]])


def test_the_batch_scale_needs_the_batch() -> None:
    with pytest.raises(ValueError, match="batch"):
        group_advantages([1.0, 2.0], "batch")
