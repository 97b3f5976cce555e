"""The report's arithmetic: axes, smoothing, figures."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.charts import Series, heat_map, line_chart
from dynalign.launch.report.figures import figure
from dynalign.launch.report.scales import binned, nice_ticks, running_mean, step_ticks


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
