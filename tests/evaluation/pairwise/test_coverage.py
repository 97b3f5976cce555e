"""How often the intervals of a win rate hold the truth."""

import numpy as np
import pytest

from dynalign.evaluation.statistics.bootstrap import bootstrapped_mean, resampled_weights
from dynalign.evaluation.statistics.estimates import clustered_mean, student_t
from tests.worlds.planted_pairs import drawn_values

PROMPTS = 100
TIMES = 2_000
RATES = (0.5, 0.7, 0.872)


@pytest.mark.parametrize("rate", RATES)
def test_the_95_percent_interval_holds_the_truth_in_95_percent(rate: float) -> None:
    values = drawn_values(rate, PROMPTS, TIMES, seed=1)
    half = student_t(PROMPTS - 1) * values.std(axis=1, ddof=1) / np.sqrt(PROMPTS)
    held = np.abs(values.mean(axis=1) - rate) <= half
    assert 0.935 <= held.mean() <= 0.965
    one = clustered_mean(
        [*values[0], *values[0]], [*range(PROMPTS), *range(PROMPTS)]
    )  # copies change nothing
    assert one is not None
    assert (one.mean, one.low) == pytest.approx((values[0].mean(), values[0].mean() - half[0]))


@pytest.mark.parametrize("rate", RATES)
def test_the_interval_of_the_cluster_bootstrap_holds_it_as_often(rate: float) -> None:
    values = drawn_values(rate, PROMPTS, TIMES, seed=2)
    weights = np.concatenate(list(resampled_weights(PROMPTS, seed=3, resamples=2_000)))
    means = weights @ values.T / PROMPTS
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    assert 0.935 <= ((low <= rate) & (rate <= high)).mean() <= 0.965
    ends = bootstrapped_mean(list(values[0]), range(PROMPTS), seed=3, resamples=2_000)
    assert ends is not None
    assert (ends.low, ends.high) == pytest.approx((low[0], high[0]), abs=1e-9)


def test_goals_of_several_prompts_widen_the_interval_to_what_it_has_to_be() -> None:
    goals = drawn_values(0.7, 50, TIMES, seed=4)
    values = np.repeat(goals, 2, axis=1)  # two prompts of a goal say the same
    by_prompt = 1.96 * values.std(axis=1, ddof=1) / np.sqrt(PROMPTS)
    by_goal = student_t(49) * goals.std(axis=1, ddof=1) / np.sqrt(50)
    off = np.abs(goals.mean(axis=1) - 0.7)
    assert (off <= by_prompt).mean() < 0.88
    assert 0.935 <= (off <= by_goal).mean() <= 0.965
