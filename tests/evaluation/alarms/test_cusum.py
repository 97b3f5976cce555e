"""Deviations and their windowed CUSUM, on numbers worked by hand and on series whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.evaluation.alarms.cusum import (
    best_levels,
    firing,
    from_best,
    from_reference,
    long_run_std,
    windowed_cusum,
)


def test_the_cusum_is_the_largest_sum_of_the_newest_deviations_beyond_the_allowance() -> None:
    found = windowed_cusum(np.array([0.0, 3.0, 2.0, 0.0, -5.0, 3.0]), allowance=1.0, window=20, limit=4.0)
    assert found.statistic_T.tolist() == [0, 2, 3, 2, 0, 2]
    assert found.start_T.tolist() == [0, 1, 1, 1, 4, 5]


def test_one_value_counts_for_no_more_than_the_limit_and_an_unknown_one_for_nothing() -> None:
    found = windowed_cusum(np.array([math.nan, 100.0, math.nan, 2.0]), allowance=1.0, window=20, limit=4.0)
    assert found.statistic_T.tolist() == [0, 3, 3, 4]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    found = windowed_cusum(np.array([4.0] * 10 + [1.0] * 5), allowance=1.0, window=5, limit=4.0)
    assert found.statistic_T.tolist() == [3, 6, 9, 12, 15, 15, 15, 15, 15, 15, 12, 9, 6, 3, 0]


@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_the_cusum_equals_the_definition(deviations: list[float], window: int) -> None:
    found = windowed_cusum(np.array(deviations), allowance=0.5, window=window, limit=4.0)
    scores = [min(deviation, 4.0) - 0.5 for deviation in deviations]
    for index, statistic in enumerate(found.statistic_T):
        sums = [sum(scores[index + 1 - n : index + 1]) for n in range(1, min(window, index + 1) + 1)]
        assert statistic == pytest.approx(max(0.0, *sums), abs=1e-9)


def test_an_alarm_fires_from_the_threshold_on_until_half_of_it() -> None:
    statistic_T = np.array([math.nan, 5.0, 6.0, 4.0, math.nan, 3.0, 2.9, 5.9, 6.0])
    assert firing(statistic_T, 6.0).tolist() == [False, False, True, True, True, True, False, False, True]


def test_a_trend_is_no_noise_and_constant_values_have_none() -> None:
    assert long_run_std(np.arange(24.0)) == pytest.approx(0.0, abs=1e-9)
    assert long_run_std(np.full(24, 2.5)) == 0.0
    with pytest.raises(ValueError, match="needs four values"):
        long_run_std(np.arange(3.0))


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.6])
def test_the_long_run_deviation_is_that_of_means_of_long_blocks(correlation: float) -> None:
    rng = np.random.default_rng(1)
    series = np.zeros((400, 200))
    for step in range(1, 200):
        series[:, step] = correlation * series[:, step - 1] + rng.normal(size=400)
    of_blocks = series[:, 100:].mean(axis=1).std() * 10  # a mean of 100 values, times sqrt(100)
    estimated = np.mean([long_run_std(each[100:140]) for each in series])
    assert estimated == pytest.approx(of_blocks, rel=0.2)


def test_deviations_are_counted_from_the_first_values_in_the_bad_direction() -> None:
    values_T = np.array([1.0, 3.0, 2.0, 2.0, 6.0])
    up_T = from_reference(values_T, reference=4, floor=1e-9, up=True)
    assert np.isnan(up_T[:4]).all()
    assert up_T[4] == pytest.approx(4.0 / long_run_std(values_T[:4]))
    assert from_reference(values_T, 4, 2.0, up=False)[4] == pytest.approx(-2.0)
    assert np.isnan(from_reference(values_T[:4], 4, 1.0, up=True)).all()


def test_a_reference_worse_than_the_bound_is_replaced_by_it() -> None:
    values_T = np.array([0.9, 0.9, 0.9, 0.9, 0.9])
    assert from_reference(values_T, 4, floor=0.1, up=True, bound=0.5)[4] == pytest.approx(4.0)
    assert from_reference(-values_T, 4, floor=0.1, up=False, bound=-0.5)[4] == pytest.approx(4.0)
    assert from_reference(values_T, 4, floor=0.1, up=True, bound=1.5)[4] == pytest.approx(0.0)


def test_the_best_level_follows_a_rise_and_stays_after_a_fall() -> None:
    values_T = np.array([0.0, 0.0, 4.0, 4.0, 4.0, 4.0, 1.0, 1.0])
    best_T = best_levels(values_T, reference=2, gap=2)
    assert np.isnan(best_T[:3]).all()
    assert best_T[3:].tolist() == [0.0, 2.0, 4.0, 4.0, 4.0]
    falls_T = from_best(np.concatenate([np.zeros(4), values_T]), reference=4, gap=2, floor=0.5)
    assert np.isnan(falls_T[:5]).all()
    assert falls_T[5:].tolist() == [0.0, -8.0, -8.0, -6.0, -4.0, 4.0, 6.0]
