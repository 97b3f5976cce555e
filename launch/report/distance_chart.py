"""Proxy and gold over the distance from the initial policy, as Gao et al. 2022 (arXiv 2210.10760) draw them.

    x  √KL to the initial policy, in √nats: a mean over seeds, at each held-out evaluation
    y  held-out reward less that before training, in points: by the run's own judge (the proxy, dashed) and by
       a judge that trained no arm (gold)

Where the dashed line goes on rising and the other one turns down, the own judge is gamed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dynalign.evaluation.experiments.report import ExperimentReport
from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.statistics.estimates import Estimate, mean_interval
from dynalign.launch.report.charts import Chart
from dynalign.launch.report.figures import figure, step_label, with_interval
from dynalign.launch.report.scales import nice_ticks, y_range
from dynalign.launch.report.svg import Frame, axis_name, drawing, polyline, readings, x_labels, y_axis

TITLE = "Gold and proxy over the distance"
UNIT = "points, less those before training"
CAPTION = (
    "Over √KL to the initial policy, a point per held-out evaluation: solid by the third judge (gold), "
    "dashed by the run's own (proxy). Means over seeds, with 95 % intervals over seeds. "
    "Where dashed rises and solid does not, the own judge is gamed (Gao et al. 2022, arXiv 2210.10760)."
)


@dataclass(frozen=True)
class DistancePoint:
    """One evaluation of an arm: `DistancePoint(20, 0.31, Estimate(0.42, 0.3, 0.54, 3))`."""

    step: int
    """After how many steps."""
    distance: float
    """√KL to the initial policy, in √nats, a mean over seeds."""
    rise: Estimate
    """The held-out reward less that of the first evaluation, in points, over seeds."""


@dataclass(frozen=True)
class DistancePath:
    """An arm by one judge: `DistancePath("the policy itself, gold", 0, False, points)`."""

    label: str
    """Its name in the legend."""
    colour: int
    """Index into the page's palette."""
    dashed: bool
    """Whether it is the proxy."""
    points: tuple[DistancePoint, ...]
    """In the order of the steps."""

    @property
    def kind(self) -> str:
        """Its CSS classes."""
        return f"c{self.colour}{' dashed' if self.dashed else ''}"


def distance_points(runs: Sequence[RunFigures], gold: bool) -> tuple[DistancePoint, ...]:
    """The points of an arm's runs. gold: by the third judge, not by the own one.

    A run counts at a step where both its score and its distance are known, and so is its score before
    training."""
    by_step: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        curve = dict(run.gold if gold else run.curve)
        if 0 not in curve:
            continue
        for step, points in curve.items():
            if step in run.distance:
                by_step.setdefault(step, []).append((run.distance[step], points - curve[0]))
    found = []
    for step, pairs in sorted(by_step.items()):
        rise = mean_interval([rise for _, rise in pairs])
        if rise is not None:
            found.append(DistancePoint(step, fmean(distance for distance, _ in pairs), rise))
    return tuple(found)


def distance_paths(report: ExperimentReport, colours: int) -> list[DistancePath]:
    """Gold and proxy of every arm that has two points or more. colours: of the palette."""
    found = []
    for number, arm in enumerate(report.plan.design.arms):
        for name, gold in (("gold", True), ("proxy", False)):
            points = distance_points(report.runs[arm.name], gold)
            if len(points) > 1:
                found.append(DistancePath(f"{arm.title}, {name}", number % colours, not gold, points))
    return found


def distance_chart(paths: Sequence[DistancePath]) -> Chart:
    """The plot; without a drawing where there is no path."""
    if not paths:
        return Chart(TITLE, UNIT, CAPTION, None)
    points = [point for path in paths for point in path.points]
    x_ticks = nice_ticks(0.0, max(point.distance for point in points))
    y_ticks = nice_ticks(*y_range([point.rise for point in points], [0.0]))
    frame = Frame(x_ticks[0], x_ticks[-1], y_ticks)
    parts = [*y_axis(frame), *x_labels(frame, x_ticks), axis_name("√KL to the initial policy, √nats")]
    for path in paths:
        parts += _drawn(frame, path)
    parts += readings(frame, sorted(_texts(paths).items()))
    ends = " ".join(
        f"{path.label}: {figure(path.points[-1].rise.mean)} at {figure(path.points[-1].distance)}."
        for path in paths
    )
    svg = drawing(f"{TITLE}, {UNIT}. {ends}", parts)
    return Chart(TITLE, UNIT, CAPTION, svg, tuple((path.label, path.kind) for path in paths))


def _drawn(frame: Frame, path: DistancePath) -> Iterator[str]:
    """Intervals, the line through the means, and a mark at each."""
    bottom = frame.y_ticks[0]
    top = frame.y_ticks[-1]
    for point in path.points:
        if point.rise.low is not None and point.rise.high is not None:
            low = frame.y(max(point.rise.low, bottom))
            high = frame.y(min(point.rise.high, top))
            drawn = f"M{frame.x(point.distance):.1f} {low:.1f}V{high:.1f}"
            yield f'<path class="line {path.kind} pale" d="{drawn}"/>'
    means = [(point.distance, point.rise.mean) for point in path.points]
    yield polyline(frame, means, f"line {path.kind}")
    for distance, mean in means:
        dot = f'cx="{frame.x(distance):.1f}" cy="{frame.y(mean):.1f}" r="2.8"'
        yield f'<circle class="dot {path.kind}" {dot}/>'


def _texts(paths: Sequence[DistancePath]) -> Mapping[float, str]:
    """Distance → what the pointer shows there."""
    found: dict[float, list[str]] = {}
    for path in paths:
        for point in path.points:
            at = f"{path.label}, {step_label([point.step])}: {with_interval(point.rise)} points"
            found.setdefault(point.distance, []).append(at)
    return {distance: "\n".join([f"√KL {figure(distance)}", *lines]) for distance, lines in found.items()}
