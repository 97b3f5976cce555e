"""The kinds of charts in the report: lines over steps, a heat map, stacked bars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dynalign.launch.report.data import Curve
from dynalign.launch.report.figures import figure, step_label, with_interval
from dynalign.launch.report.scales import binned, nice_ticks, running_mean, span, thinned, y_range
from dynalign.launch.report.svg import (
    LEFT,
    RIGHT,
    WIDTH,
    Frame,
    axes,
    column_labels,
    drawing,
    hits,
    marked_steps,
    polyline,
    readings,
    y_axis,
)

MOST_READINGS = 240
"""Steps per chart whose values the pointer shows."""
MOST_MARKERS = 60
"""Points of a line that are marked one by one; a longer line is drawn pale under its running mean."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: `Series("training", [(1, Estimate(1.49)), (2, Estimate(1.55))], colour=0)`."""

    label: str
    """Its name in the legend."""
    curve: Curve
    """Its points, by step."""
    colour: int
    """Index into the page's palette."""
    dashed: bool = False
    """Whether it is drawn for comparison only."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its texts."""

    title: str
    """What is shown."""
    unit: str
    """The unit of the y axis."""
    caption: str
    """How the figures were computed."""
    svg: Markup | None
    """The drawing; None where there is nothing to draw, which the page then says."""
    legend: tuple[tuple[str, str], ...] = ()
    """The label and the CSS classes of each swatch."""


def line_chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    caption: str = "",
    *,
    rules: Mapping[str, float] | None = None,
    marks: Mapping[int, str] | None = None,
    floor: float | None = None,
) -> Chart:
    """Lines over steps with their 95 % bands.

    rules: horizontal lines, label → value. marks: vertical lines, step → label.
    floor: a value that the y axis must include.
    """
    drawn = [each for each in series if each.curve]
    if not drawn:
        return Chart(title, unit, caption, None)
    rules = rules or {}
    steps = [step for each in drawn for step, _ in each.curve]
    anchors = [*rules.values(), *([] if floor is None else [floor])]
    estimates = [estimate for each in drawn for _, estimate in each.curve]
    frame = Frame(*span(min(steps), max(steps)), nice_ticks(*y_range(estimates, anchors)))
    parts = [*axes(frame), *marked_steps(frame, marks or {})]
    for label, value in rules.items():
        y = frame.y(value)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        position = f'x="{WIDTH - RIGHT - 4}" y="{y - 4:.1f}"'
        parts.append(f'<text class="note" {position} text-anchor="end">{escape(label)}</text>')
    for each in drawn:
        parts += _line(frame, each)
    parts += readings(frame, list(_values_by_step(drawn, unit).items()))
    legend = tuple((each.label, f"c{each.colour}{' dashed' if each.dashed else ''}") for each in drawn)
    svg = drawing(f"{title}, {unit}. {_in_words(drawn)}", parts)
    return Chart(title, unit, caption, svg, legend if len(legend) > 1 else ())


def _line(frame: Frame, series: Series) -> Iterator[str]:
    """A line with its band; markers on a short one, the running mean over a long one."""
    points = thinned(series.curve)
    kind = f"c{series.colour}{' dashed' if series.dashed else ''}"
    bottom = frame.y_ticks[0]
    top = frame.y_ticks[-1]
    banded = [
        (step, max(e.low, bottom), min(e.high, top))
        for step, e in points
        if e.low is not None and e.high is not None
    ]
    if len(banded) > 1:
        there = " ".join(f"{frame.x(step):.1f},{frame.y(high):.1f}" for step, _, high in banded)
        back = " ".join(f"{frame.x(step):.1f},{frame.y(low):.1f}" for step, low, _ in reversed(banded))
        yield f'<polygon class="band {kind}" points="{there} {back}"/>'
    elif banded:
        step, low, high = banded[0]
        yield f'<path class="line {kind}" d="M{frame.x(step):.1f} {frame.y(low):.1f}V{frame.y(high):.1f}"/>'
    means = [(step, estimate.mean) for step, estimate in points]
    smooth = len(points) > MOST_MARKERS
    yield polyline(frame, means, f"line {kind}{' pale' if smooth else ''}")
    if smooth:
        every = [(step, estimate.mean) for step, estimate in series.curve]
        yield polyline(frame, running_mean(every), f"line {kind}")
    else:
        for step, mean in means:
            yield f'<circle class="dot {kind}" cx="{frame.x(step):.1f}" cy="{frame.y(mean):.1f}" r="2.4"/>'


def _values_by_step(drawn: Sequence[Series], unit: str) -> dict[int, str]:
    """The text that the pointer shows, for at most MOST_READINGS steps."""
    texts: dict[int, list[str]] = {}
    for each in drawn:
        name = f"{each.label} " if len(drawn) > 1 else ""
        for step, estimate in each.curve:
            texts.setdefault(step, []).append(f"{name}{with_interval(estimate)} {unit}")
    chosen = [column[-1] for column in binned(sorted(texts), MOST_READINGS)]
    return {step: "\n".join([step_label([step]), *texts[step]]) for step in chosen}


def _in_words(drawn: Sequence[Series]) -> str:
    """The chart in words, for screen readers."""
    ends = [(each.label, *each.curve[0], *each.curve[-1]) for each in drawn]
    return " ".join(
        f"{label}: {figure(a.mean)} at step {first}, {figure(b.mean)} at step {last}."
        for label, first, a, last, b in ends
    )


def heat_map(
    title: str, unit: str, scores: Mapping[int, Sequence[float]], caption: str, *, high: float, rows: int
) -> Chart:
    """The distribution of each step's scores over bands from 0 to `high`: darker where more scores are.

    scores: step → scores of its candidates. rows: number of bands.
    """
    if not any(scores.values()):
        return Chart(title, unit, caption, None)
    frame = Frame(0, 1, tuple(float(tick) for tick in range(round(high) + 1)))
    columns = binned([step for step in sorted(scores) if scores[step]])
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    shares = [_shares([score for step in column for score in scores[step]], high, rows) for column in columns]
    darkest = max(max(share) for share in shares)
    parts = [*y_axis(frame)]
    tips: list[tuple[float, float, str]] = []
    for index, (column, share_R) in enumerate(zip(columns, shares, strict=True)):
        x = LEFT + index * width
        for row, share in enumerate(share_R):
            if share:
                top = frame.y((row + 1) * high / rows)
                bottom = frame.y(row * high / rows)
                opacity = 0.12 + 0.88 * share / darkest
                size = f'width="{width + 0.2:.1f}" height="{bottom - top:.1f}"'
                box = f'x="{x:.1f}" y="{top:.1f}" {size}'
                parts.append(f'<rect class="fill c0" {box} opacity="{opacity:.2f}"/>')
        mode = max(range(rows), key=share_R.__getitem__)
        band = f"{figure(mode * high / rows)} and {figure((mode + 1) * high / rows)}"
        counted = f"{sum(len(scores[step]) for step in column):,} scores"
        tip = f"{step_label(column)}\n{counted}\nmost between {band}: {share_R[mode]:.0%}"
        tips.append((x, width, tip))
    parts += [*column_labels(columns, width), *hits(tips)]
    svg = drawing(f"{title}, {unit}, over {len(columns)} columns of steps.", parts)
    return Chart(title, unit, caption, svg)


def _shares(scores: Sequence[float], high: float, rows: int) -> list[float]:
    """The share of the scores in each band, lowest band first."""
    counts = [0] * rows
    for score in scores:
        counts[min(rows - 1, max(0, int(score / high * rows)))] += 1
    return [count / len(scores) for count in counts]


def stacked_bars(
    title: str,
    unit: str,
    names: Sequence[tuple[str, int]],
    values: Mapping[int, Sequence[float]],
    caption: str,
    y_high: float,
) -> Chart:
    """The parts of a whole per step, stacked in the order of `names`.

    A column of several steps shows their mean.

    names: label and colour of each part. values: step → its parts. y_high: top of the y axis.
    """
    legend = tuple((name, f"box c{colour}") for name, colour in names)
    if not values or not y_high:
        return Chart(title, unit, caption, None)
    frame = Frame(0, 1, nice_ticks(0.0, y_high))
    columns = binned(sorted(values))
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    parts = [*y_axis(frame)]
    tips: list[tuple[float, float, str]] = []
    for index, column in enumerate(columns):
        x = LEFT + index * width
        base = 0.0
        means = [sum(values[step][part] for step in column) / len(column) for part in range(len(names))]
        for (_, colour), mean in zip(names, means, strict=True):
            if mean > 0:
                y = frame.y(base + mean)
                height = frame.y(base) - y
                bar = f'x="{x + 0.1 * width:.1f}" y="{y:.1f}" width="{0.8 * width:.1f}" height="{height:.1f}"'
                parts.append(f'<rect class="fill c{colour}" {bar}/>')
            base += max(0.0, mean)
        texts = [f"{name} {figure(mean)} {unit}" for (name, _), mean in zip(names, means, strict=True)]
        tips.append((x, width, "\n".join([step_label(column), *reversed(texts)])))
    parts += [*column_labels(columns, width), *hits(tips)]
    svg = drawing(f"{title}, {unit}, over {len(columns)} columns of steps.", parts)
    return Chart(title, unit, caption, svg, legend)
