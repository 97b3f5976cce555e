"""The report's arithmetic: intervals against tables and by hand, axes, smoothing, figures."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.launch.report.charts import Series, heat_map, line_chart
from dynalign.launch.report.figures import figure
from dynalign.launch.report.intervals import Estimate, mean_interval, ratio_interval, student_t
from dynalign.launch.report.scales import binned, nice_ticks, running_mean, step_ticks


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (31, 2.040), (1000, 1.962)],
)
def test_students_t_agrees_with_the_printed_table(degrees: int, expected: float) -> None:
    assert student_t(degrees) == pytest.approx(expected, abs=0.004)


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


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_enclose_the_values_rise_and_stay_few(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    gap = ticks[1] - ticks[0]
    assert ticks[0] <= low + gap * 1e-6
    assert ticks[-1] >= low + span - gap * 1e-6
    assert list(ticks) == sorted(set(ticks))
    assert 2 <= len(ticks) <= 8


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_step_ticks_are_whole_steps_within_the_axis(low: int, span: int) -> None:
    ticks = step_ticks(low, low + span)
    assert 1 <= len(ticks) <= 9
    assert all(low <= tick <= low + span for tick in ticks)


@given(st.integers(1, 2000), st.integers(1, 60))
def test_columns_hold_every_step_once_in_order(total: int, most: int) -> None:
    columns = binned(range(total), most)
    assert [step for column in columns for step in column] == list(range(total))
    assert len(columns) <= most


def test_a_running_mean_of_a_straight_line_is_that_line_away_from_its_ends() -> None:
    points = [(step, 2.0 * step) for step in range(200)]
    assert running_mean(points)[5:-5] == points[5:-5]
    assert running_mean([(7, 1.0)]) == [(7, 1.0)]


def test_a_long_line_keeps_its_spikes() -> None:
    curve = [(step, Estimate(1000.0 if step == 3_333 else 1.0)) for step in range(10_000)]
    drawn = str(line_chart("age", "steps", [Series("max", curve, 0)]).svg)
    assert len(drawn) < 60_000
    assert 'class="line c0 pale"' in drawn
    top = min(
        float(y)
        for y in re.findall(r",([0-9.]+)", drawn.split('class="line c0 pale" points="')[1].split('"')[0])
    )
    assert top == pytest.approx(20, abs=1)


FIGURES = [
    (0, "0"),
    (1.2345, "1.23"),
    (-0.5, "−0.5"),
    (12345.6, "12,346"),
    (1e-5, "1e−5"),
    (2.5e-7, "2.5e−7"),
    (0.012, "0.012"),
]


@pytest.mark.parametrize(("value", "words"), FIGURES)
def test_figures_have_three_digits(value: float, words: str) -> None:
    assert figure(value) == words


def test_a_heat_map_of_no_scores_is_no_chart() -> None:
    assert heat_map("scores", "points", {1: []}, "", high=5, rows=20).svg is None


def test_a_fraction_that_is_always_zero_has_no_axis_below_zero() -> None:
    drawn = str(
        line_chart(
            "unparsed",
            "fraction",
            [Series("unparsed", [(1, Estimate(0.0)), (2, Estimate(0.0))], 0)],
            floor=0.0,
        ).svg
    )
    assert ">0.0<" in drawn
    assert "−" not in drawn
