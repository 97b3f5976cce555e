"""Means over seeds and prompts: numbers worked by hand, coverage, and what a plan can see."""

import math

import numpy as np
import pytest

from dynalign.evaluation.statistics.crossed import (
    Components,
    crossed_mean,
    seeds_mean,
    seeds_needed,
    smallest_visible,
)
from dynalign.evaluation.statistics.estimates import mean_interval

BY_HAND = ((1.0, 2.0, 6.0), (3.0, 4.0, 2.0))
"""Means of seeds 3 and 3, of prompts 2, 3 and 4."""


def test_mean_squares_and_degrees_are_those_worked_by_hand() -> None:
    found = crossed_mean(BY_HAND)
    assert found is not None
    # Between seeds 0. Between prompts 2·(1 + 0 + 1)/2 = 2. Rest: -1 -1 +2 +1 +1 -2, so 12/2 = 6.
    assert found.mean == 3.0
    assert found.components == Components(0.0, 0.0, 6.0)
    # The smallest one, that of the seeds, is subtracted: v = 0 + 2 - 0, with the degrees of the prompts.
    assert found.error == pytest.approx(math.sqrt((0 + 2 - 0) / 6))
    assert found.degrees == 2.0


def test_with_equal_prompts_it_is_the_paired_t_test_over_seeds() -> None:
    found = crossed_mean([[0.1] * 5, [0.4] * 5, [0.3] * 5])
    plain = mean_interval([0.1, 0.4, 0.3])
    assert found is not None
    assert plain is not None
    assert found.degrees == pytest.approx(2.0)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((plain.low, plain.high))
    alone = seeds_mean([0.1, 0.4, 0.3])
    assert alone is not None
    assert (alone.estimate.low, alone.estimate.high) == pytest.approx((plain.low, plain.high))


@pytest.mark.parametrize("variances", [(0.0, 0.0, 1.0), (0.3, 0.0, 1.0), (0.0, 0.5, 1.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("shape", [(3, 8), (5, 16)])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(
    variances: tuple[float, float, float], shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(7)
    seeds, prompts = shape
    of_seeds, of_prompts, rest = (math.sqrt(each) for each in variances)
    times = 400
    held = 0
    for _ in range(times):
        values = of_seeds * rng.normal(size=(seeds, 1)) + of_prompts * rng.normal(size=(1, prompts))
        found = crossed_mean(values + rest * rng.normal(size=shape))
        assert found is not None
        estimate = found.estimate
        assert estimate.low is not None
        assert estimate.high is not None
        held += estimate.low <= 0.0 <= estimate.high
    # Between 92 % and 98.5 % in 2,000 draws of each; four standard errors of 400 draws are 4.4 points.
    assert 0.89 <= held / times <= 1.0


def test_a_difference_that_the_plan_can_see_is_found_four_times_in_five() -> None:
    variances = Components(0.01, 0.04, 0.25)
    visible = smallest_visible(variances, 5, 16, tests=1)
    rng = np.random.default_rng(3)
    times = 600
    found = 0
    for _ in range(times):
        values = (
            0.1 * rng.normal(size=(5, 1)) + 0.2 * rng.normal(size=(1, 16)) + 0.5 * rng.normal(size=(5, 16))
        )
        mean = crossed_mean(values + visible)
        assert mean is not None
        found += mean.p_different() <= 0.05
    assert found / times == pytest.approx(0.8, abs=0.08)


def test_more_seeds_prompts_or_fewer_arms_see_more() -> None:
    variances = Components(0.01, 0.04, 0.25)
    here = smallest_visible(variances, 3, 8, 3)
    assert smallest_visible(variances, 6, 8, 3) < here
    assert smallest_visible(variances, 3, 32, 3) < here
    assert smallest_visible(variances, 3, 8, 1) < here
    # Seeds that differ alone: t with two degrees, (4.303 + 1.061)·√(1/3).
    assert smallest_visible(Components(1.0, 0.0, 0.0), 3, 8, 1) == pytest.approx(
        5.364 / math.sqrt(3), rel=1e-3
    )


def test_the_seeds_that_are_needed_are_the_fewest_that_see_the_difference() -> None:
    variances = Components(0.01, 0.0, 0.25)
    seeds = seeds_needed(variances, 16, 3, 0.25)
    assert seeds is not None
    assert smallest_visible(variances, seeds, 16, 3) <= 0.25 < smallest_visible(variances, seeds - 1, 16, 3)
    assert seeds_needed(Components(0.0, 1.0, 0.0), 16, 3, 0.25) is None


def test_what_cannot_be_estimated_says_so() -> None:
    assert crossed_mean([[1.0, 2.0]]) is None
    assert crossed_mean([[1.0], [2.0]]) is None
    assert seeds_mean([1.0]) is None
    equal = crossed_mean([[0.5, 0.5], [0.5, 0.5]])
    assert equal is not None
    assert equal.error is None
    assert equal.p_different() == 1.0
    assert equal.p_not_above(-1.0) == 1.0
    assert equal.estimate.low is None
