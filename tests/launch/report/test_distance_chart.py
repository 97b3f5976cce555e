"""Gold and proxy over √KL, in an experiment's page."""

import re
from dataclasses import replace

import pytest

from dynalign.evaluation.experiments.run_figures import RunFigures, RunOutcome
from dynalign.launch.report.distance_chart import DistancePath, distance_chart, distance_points

DONE = RunOutcome("finished", 20, 60.0)


def run(seed: int, far: float) -> RunFigures:
    """A run whose own judge likes it more and more, and whose third judge does at first."""
    return RunFigures(
        "self", seed, DONE,
        curve=((0, 2.0), (10, 2.5), (20, 3.0)),
        gold=((0, 1.0), (10, 1.25), (20, 0.5)),
        distance={0: 0.0, 10: far / 2, 15: 9.0, 20: far},
    )  # fmt: skip


RUNS = [run(0, 0.4), run(1, 0.6)]


def test_a_point_is_the_mean_rise_at_the_mean_distance_of_an_evaluation() -> None:
    gold = distance_points(RUNS, gold=True)
    proxy = distance_points(RUNS, gold=False)
    assert [(point.step, point.distance) for point in gold] == [(0, 0.0), (10, 0.25), (20, 0.5)]
    assert [point.rise.mean for point in gold] == pytest.approx([0.0, 0.25, -0.5])
    assert [point.rise.mean for point in proxy] == pytest.approx([0.0, 0.5, 1.0])
    assert gold[2].rise.n == 2


def test_a_run_without_a_first_evaluation_or_a_distance_gives_no_point() -> None:
    late = replace(RUNS[0], curve=((10, 2.5),), gold=())
    unmeasured = replace(RUNS[0], distance={})
    assert distance_points([late, unmeasured], gold=False) == ()


def test_gold_is_solid_and_proxy_dashed_with_the_distance_on_x() -> None:
    paths = [
        DistancePath("self, gold", 0, False, distance_points(RUNS, gold=True)),
        DistancePath("self, proxy", 0, True, distance_points(RUNS, gold=False)),
    ]
    chart = distance_chart(paths)
    drawn = str(chart.svg)
    lines = re.findall(r'<polyline class="([^"]+)" points="([^"]+)"', drawn)
    assert [kind for kind, _ in lines] == ["line c0", "line c0 dashed"]
    (solid, dashed) = [[tuple(map(float, each.split(","))) for each in points.split()] for _, points in lines]
    assert [x for x, _ in solid] == [x for x, _ in dashed] == sorted(x for x, _ in solid)
    assert solid[0] == dashed[0], "both begin at nothing"
    assert solid[2][1] > solid[0][1] > dashed[2][1], "gold has fallen, the proxy has risen; y goes downwards"
    assert "√KL to the initial policy, √nats" in drawn
    assert "step 20: 1 " in drawn.replace(".00", "")
    assert chart.legend == (("self, gold", "c0"), ("self, proxy", "c0 dashed"))


def test_without_points_there_is_no_drawing() -> None:
    assert distance_chart([]).svg is None
