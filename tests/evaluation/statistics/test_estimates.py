"""Intervals against printed tables, by hand, and by how often they hold the truth."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynalign.evaluation.statistics.bootstrap import bootstrapped_mean, percentile_interval
from dynalign.evaluation.statistics.estimates import (
    Estimate,
    clustered_mean,
    mean_interval,
    ratio_interval,
    student_t,
)

WIN_RATES = (0.5, 0.7, 0.872)
"""An even one, a clear one, and the paper's 87.2 %."""
PROMPTS = 100


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (31, 2.040), (1000, 1.962)],
)
def test_students_t_agrees_with_the_printed_table(degrees: int, expected: float) -> None:
    assert student_t(degrees) == pytest.approx(expected, abs=0.0006)


def test_a_mean_of_two_has_the_interval_worked_by_hand() -> None:
    # std of (1, 2) is sqrt(1/2), over sqrt(2) it is 1/2; t with one degree is 12.706
    assert mean_interval([1.0, 2.0]) == Estimate(
        1.5, pytest.approx(1.5 - 6.353, abs=1e-3), pytest.approx(1.5 + 6.353, abs=1e-3), 2
    )


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_interval([2.0]) == Estimate(2.0, None, None, 1)
    assert mean_interval([]) is None
    assert ratio_interval([]) is None


def test_a_ratio_weighs_clusters_by_their_tokens() -> None:
    # (1 + 9) / (10 + 30) = 0.25; residuals 1 - 2.5 and 9 - 7.5 are -1.5 and 1.5:
    # half = 12.706 · sqrt(2 · 4.5) / 40
    estimate = ratio_interval([(1.0, 10), (9.0, 30)])
    assert estimate == Estimate(
        0.25, pytest.approx(0.25 - 0.953, abs=1e-3), pytest.approx(0.25 + 0.953, abs=1e-3), 2
    )


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_clusters_of_equal_size_have_the_interval_of_a_plain_mean(values: list[float]) -> None:
    by_ratio = ratio_interval([(7 * value, 7) for value in values])
    by_mean = mean_interval(values)
    assert by_ratio is not None
    assert by_mean is not None
    assert by_ratio.mean == pytest.approx(by_mean.mean, abs=1e-9)
    assert by_ratio.low == pytest.approx(by_mean.low, abs=1e-6)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_a_cluster_for_each_value_gives_the_interval_of_a_plain_mean(values: list[float]) -> None:
    clustered = clustered_mean(values, range(len(values)))
    plain = mean_interval(values)
    assert clustered is not None
    assert plain is not None
    assert clustered.mean == pytest.approx(plain.mean, abs=1e-9)
    assert clustered.high == pytest.approx(plain.high, abs=1e-6)


def test_copies_of_a_value_in_one_cluster_make_an_interval_no_narrower() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    once = clustered_mean(values, "abcd")
    copied = clustered_mean(values * 5, "abcd" * 5)
    assert copied is not None
    assert once is not None
    assert (copied.mean, copied.n) == (once.mean, once.n)
    assert copied.low == pytest.approx(once.low)
    assert bootstrapped_mean(values * 5, "abcd" * 5) == bootstrapped_mean(values, "abcd")


def holds(estimate: Estimate | None, truth: float) -> bool:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def likely_wins(p: float) -> list[tuple[int, float]]:
    """(wins, probability) of 100 verdicts of one each, for all but outcomes that never happen."""
    chances = [(wins, float(stats.binom.pmf(wins, PROMPTS, p))) for wins in range(PROMPTS + 1)]
    return [(wins, chance) for wins, chance in chances if chance > 1e-6]


@pytest.mark.parametrize("p", WIN_RATES)
def test_the_exact_coverage_of_both_intervals_of_a_win_rate_is_95_percent(p: float) -> None:
    by_t = 0.0
    by_bootstrap = 0.0
    for wins, chance in likely_wins(p):
        values = [1.0] * wins + [0.0] * (PROMPTS - wins)
        by_t += chance * holds(clustered_mean(values, range(PROMPTS)), p)
        by_bootstrap += chance * holds(bootstrapped_mean(values, range(PROMPTS), resamples=2000), p)
    assert 0.935 <= by_t <= 0.965
    assert 0.93 <= by_bootstrap <= 0.97


@pytest.mark.parametrize("p", WIN_RATES)
def test_the_interval_over_prompts_covers_and_one_over_single_verdicts_does_not(p: float) -> None:
    # Two verdicts per prompt, the second one with the order swapped; four times in five it is the same.
    random = np.random.default_rng(14)
    prompts = [prompt for prompt in range(PROMPTS) for _ in range(2)]
    over_prompts = 0
    over_verdicts = 0
    for _ in range(2000):
        first, other = random.random((2, PROMPTS)) < p
        second = np.where(random.random(PROMPTS) < 0.8, first, other)
        verdicts = np.stack([first, second], axis=1).ravel().astype(float).tolist()
        over_prompts += holds(clustered_mean(verdicts, prompts), p)
        over_verdicts += holds(clustered_mean(verdicts, range(2 * PROMPTS)), p)
    assert 0.935 <= over_prompts / 2000 <= 0.965
    assert over_verdicts / 2000 < 0.9


def test_the_bootstrap_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.5, 40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrapped_mean(values.tolist(), range(40))
    assert ours is not None
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_one_cluster_has_no_bootstrap_and_a_statistic_that_is_nowhere_defined_has_no_interval() -> None:
    assert bootstrapped_mean([1.0, 2.0], "aa") == Estimate(1.5, None, None, 1)
    assert bootstrapped_mean([], []) is None
    assert percentile_interval(lambda weights: np.full(len(weights), np.nan), 5) is None


def test_a_t_with_many_degrees_is_normal() -> None:
    assert student_t(1e6) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-4)
