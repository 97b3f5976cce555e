"""The report's charts, drawn as inline SVG.

No chart library: the page then needs no script to show a chart, prints, follows the reader's light or dark theme through CSS
classes, and is some hundred kilobytes where a bundled library alone is five megabytes. Every text that enters is escaped.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from markupsafe import Markup, escape

from dynalign.launch.report.data import Curve
from dynalign.launch.report.intervals import Estimate

T = TypeVar("T")

WIDTH, HEIGHT = 540, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 20, 34
"""Margins of the plot area, in the drawing's own units, which a wide screen shows as about one pixel each."""
LONGEST_LINE = 600
"""Points drawn per line; a longer one keeps the extremes of each stretch, so that no spike disappears."""
MOST_COLUMNS = 60
"""Columns of a heat map or bar chart; a longer run puts neighbouring steps together."""
MOST_READINGS = 240
"""Steps per chart that answer the pointer with their values."""
MOST_MARKERS = 60
"""Points of a line that are marked one by one; a longer line is drawn pale under its running mean."""
MINUS = "−"


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `colour` is an index into the page's palette; a dashed line marks what is drawn for comparison."""

    label: str
    curve: Curve
    colour: int
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its words. `svg` is None when there is nothing to draw: then `caption` is preceded by a sentence saying so.
    legend: (label, CSS classes of its swatch)."""

    title: str
    unit: str
    caption: str
    svg: Markup | None
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot area: steps on x, a quantity on y, both linear."""

    x_low: float
    x_high: float
    y_ticks: tuple[float, ...]

    def x(self, step: float) -> float:
        return LEFT + (step - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


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
    """Lines over steps with their 95 % bands. rules: horizontal lines by label. marks: vertical ones by step. floor: a value that
    the y axis includes."""
    drawn = [each for each in series if each.curve]
    if not drawn:
        return Chart(title, unit, caption, None)
    rules, marks = rules or {}, marks or {}
    steps = [step for each in drawn for step, _ in each.curve]
    anchors = [*rules.values(), *([] if floor is None else [floor])]
    frame = Frame(
        *_span(min(steps), max(steps)), nice_ticks(*_y_range([e for s in drawn for _, e in s.curve], anchors))
    )
    parts = [*_axes(frame), *_marks(frame, marks)]
    for label, value in rules.items():
        y = frame.y(value)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="note" x="{WIDTH - RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
    for each in drawn:
        parts += _line(frame, each)
    parts += _readings(frame, _values_by_step(drawn, unit))
    legend = tuple((each.label, f"c{each.colour}{' dashed' if each.dashed else ''}") for each in drawn)
    return Chart(
        title,
        unit,
        caption,
        _svg(f"{title}, {unit}. {_told(drawn)}", parts),
        legend if len(legend) > 1 else (),
    )


def heat_map(
    title: str, unit: str, scores: Mapping[int, Sequence[float]], caption: str, *, high: float, rows: int
) -> Chart:
    """Shares of each step's scores per band of 0..high, darker where more scores lie."""
    if not any(scores.values()):
        return Chart(title, unit, caption, None)
    frame = Frame(0, 1, tuple(float(tick) for tick in range(round(high) + 1)))
    columns = binned([step for step in sorted(scores) if scores[step]])
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    shares = [_shares([score for step in column for score in scores[step]], high, rows) for column in columns]
    darkest = max(max(share) for share in shares)
    parts = [*_y_axis(frame)]
    tips: list[tuple[float, float, str]] = []
    for index, (column, share_R) in enumerate(zip(columns, shares, strict=True)):
        x = LEFT + index * width
        for row, share in enumerate(share_R):
            if share:
                top, bottom = frame.y((row + 1) * high / rows), frame.y(row * high / rows)
                opacity = 0.12 + 0.88 * share / darkest
                size = f'width="{width + 0.2:.1f}" height="{bottom - top:.1f}"'
                parts.append(
                    f'<rect class="fill c0" x="{x:.1f}" y="{top:.1f}" {size} opacity="{opacity:.2f}"/>'
                )
        mode = max(range(rows), key=share_R.__getitem__)
        most = f"most between {figure(mode * high / rows)} and {figure((mode + 1) * high / rows)}: {share_R[mode]:.0%}"
        tips.append(
            (x, width, f"{_step_label(column)}\n{sum(len(scores[s]) for s in column):,} scores\n{most}")
        )
    parts += [*_column_labels(columns, width), *_hits(tips)]
    return Chart(title, unit, caption, _svg(f"{title}, {unit}, over {len(columns)} columns of steps.", parts))


def stacked_bars(
    title: str,
    unit: str,
    names: Sequence[tuple[str, int]],
    values: Mapping[int, Sequence[float]],
    caption: str,
    y_high: float,
) -> Chart:
    """Per step the parts of a whole, stacked in the order of `names` (label, colour); steps put together show their mean."""
    legend = tuple((name, f"box c{colour}") for name, colour in names)
    if not values or not y_high:
        return Chart(title, unit, caption, None)
    frame = Frame(0, 1, nice_ticks(0.0, y_high))
    columns = binned(sorted(values))
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    parts = [*_y_axis(frame)]
    tips: list[tuple[float, float, str]] = []
    for index, column in enumerate(columns):
        x, base = LEFT + index * width, 0.0
        means = [sum(values[step][part] for step in column) / len(column) for part in range(len(names))]
        for (_, colour), mean in zip(names, means, strict=True):
            if mean > 0:
                y, height = frame.y(base + mean), frame.y(base) - frame.y(base + mean)
                bar = f'x="{x + 0.1 * width:.1f}" y="{y:.1f}" width="{0.8 * width:.1f}" height="{height:.1f}"'
                parts.append(f'<rect class="fill c{colour}" {bar}/>')
            base += max(0.0, mean)
        told = [f"{name} {figure(mean)} {unit}" for (name, _), mean in zip(names, means, strict=True)]
        tips.append((x, width, "\n".join([_step_label(column), *reversed(told)])))
    parts += [*_column_labels(columns, width), *_hits(tips)]
    return Chart(
        title, unit, caption, _svg(f"{title}, {unit}, over {len(columns)} columns of steps.", parts), legend
    )


def figure(value: float) -> str:
    """Three significant digits, thousands separated, a power of ten only below 0.001, and a true minus sign."""
    size = abs(value)
    if size >= 100:
        words = f"{value:,.0f}"
    elif size >= 1e-3 or value == 0:
        words = f"{value:.3g}"
    else:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        words = f"{float(mantissa):g}e{int(exponent)}"
    return words.replace("-", MINUS)


def hundredths(value: float, sign: str = "") -> str:
    """Two decimals; `sign` "+" shows the sign of a rise, too."""
    return f"{value:{sign}.2f}".replace("-", MINUS)


def nice_ticks(low: float, high: float) -> tuple[float, ...]:
    """Two to seven ticks that enclose [low, high], at multiples of 1, 2, 2.5 or 5 times a power of ten."""
    raw = max((high - low) / 5, 1e-9 * max(abs(low), abs(high)), 1e-15)  # finer differences are rounding
    power = 10.0 ** math.floor(math.log10(raw))
    gap = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return tuple(float(f"{index * gap:.12g}") for index in range(first, max(last, first + 1) + 1))


def step_ticks(low: float, high: float) -> list[int]:
    """At most nine whole steps within [low, high], at multiples of 1, 2 or 5 times a power of ten."""
    gap = next(
        factor * 10**power
        for power in range(18)
        for factor in (1, 2, 5)
        if (high - low) / (factor * 10**power) <= 8
    )
    return list(range(math.ceil(low / gap) * gap, math.floor(high) + 1, gap))


def binned(steps: Sequence[T], most: int = MOST_COLUMNS) -> list[Sequence[T]]:
    """Neighbours put together, so that at most `most` columns remain."""
    size = math.ceil(len(steps) / most) or 1
    return [steps[start : start + size] for start in range(0, len(steps), size)]


def _span(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _y_range(estimates: Sequence[Estimate], anchors: Sequence[float]) -> tuple[float, float]:
    """The means and their intervals; an interval of very few parts may leave the picture rather than flatten every line in it."""
    means = [estimate.mean for estimate in estimates] + list(anchors)
    low, high = min(means), max(means)
    if low == high:
        margin = 0.1 * abs(high) or 0.5
        return (low if low in anchors else low - margin), high + margin
    lows = [estimate.low for estimate in estimates if estimate.low is not None]
    highs = [estimate.high for estimate in estimates if estimate.high is not None]
    return max(min([low, *lows]), 2 * low - high), min(max([high, *highs]), 2 * high - low)


def _svg(label: str, parts: Sequence[str]) -> Markup:
    """The drawing. Every part is made in this file from numbers and escaped words."""
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _y_axis(frame: Frame) -> Iterator[str]:
    gap = frame.y_ticks[1] - frame.y_ticks[0]
    digits = len(f"{gap:f}".rstrip("0").partition(".")[2])
    for tick in frame.y_ticks:
        y = frame.y(tick)
        label = figure(tick) if gap < 1e-4 else f"{tick:,.{digits}f}".replace("-", MINUS)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _axes(frame: Frame) -> Iterator[str]:
    yield from _y_axis(frame)
    for tick in step_ticks(frame.x_low, frame.x_high):
        yield f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{tick:,}</text>'
    yield _axis_name()


def _axis_name() -> str:
    return f'<text class="note" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">step</text>'


def _column_labels(columns: Sequence[Sequence[int]], width: float) -> Iterator[str]:
    every = math.ceil(len(columns) / 10)
    for index in range(0, len(columns), every):
        x = LEFT + (index + 0.5) * width
        yield f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{columns[index][0]:,}</text>'
    yield _axis_name()


def _marks(frame: Frame, marks: Mapping[int, str]) -> Iterator[str]:
    for step, label in marks.items():
        x = frame.x(step - 0.5)
        yield f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield f'<text class="note" x="{x:.1f}" y="{TOP - 5}" text-anchor="middle">{escape(label)}</text>'


def _line(frame: Frame, series: Series) -> Iterator[str]:
    points = _thinned(series.curve)
    kind = f"c{series.colour}{' dashed' if series.dashed else ''}"
    bottom, top = frame.y_ticks[0], frame.y_ticks[-1]
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
    yield _path(frame, means, f"line {kind}{' pale' if smooth else ''}")
    if smooth:
        yield _path(
            frame, running_mean([(step, estimate.mean) for step, estimate in series.curve]), f"line {kind}"
        )
    else:
        for step, mean in means:
            yield f'<circle class="dot {kind}" cx="{frame.x(step):.1f}" cy="{frame.y(mean):.1f}" r="2.4"/>'


def _path(frame: Frame, points: Sequence[tuple[int, float]], kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{frame.x(step):.1f},{frame.y(value):.1f}" for step, value in points)}"/>'


def running_mean(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each point's mean with its neighbours, a twentieth of the line together; at the ends, with those that there are."""
    total, reach = len(points), len(points) // 40
    sums = [0.0, *accumulate(value for _, value in points)]
    found: list[tuple[int, float]] = []
    for index in range(0, total, math.ceil(total / LONGEST_LINE)):
        first, last = max(0, index - reach), min(total, index + reach + 1)
        found.append((points[index][0], (sums[last] - sums[first]) / (last - first)))
    return found


def _thinned(curve: Curve) -> Curve:
    if len(curve) <= LONGEST_LINE:
        return curve
    kept: set[int] = {0, len(curve) - 1}
    for stretch in binned(range(len(curve)), LONGEST_LINE // 2):
        kept |= {min(stretch, key=lambda i: curve[i][1].mean), max(stretch, key=lambda i: curve[i][1].mean)}
    return [curve[index] for index in sorted(kept)]


def _values_by_step(drawn: Sequence[Series], unit: str) -> dict[int, str]:
    told: dict[int, list[str]] = {}
    for each in drawn:
        name = f"{each.label} " if len(drawn) > 1 else ""
        for step, estimate in each.curve:
            told.setdefault(step, []).append(f"{name}{with_interval(estimate)} {unit}")
    chosen = [column[-1] for column in binned(sorted(told), MOST_READINGS)]
    return {step: "\n".join([_step_label([step]), *told[step]]) for step in chosen}


def with_interval(estimate: Estimate) -> str:
    """`1.59 (1.51 to 1.67, n 32)`, three digits of the mean and as many decimals in the interval; without one the mean alone."""
    if estimate.low is None or estimate.high is None:
        return figure(estimate.mean)
    size = max(abs(estimate.mean), estimate.high - estimate.low) or 1.0
    digits = min(6, max(0, 2 - math.floor(math.log10(size))))
    mean, low, high = (
        f"{value:.{digits}f}".replace("-", MINUS) for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} ({low} to {high}, n {estimate.n})"


def _readings(frame: Frame, told: Mapping[int, str]) -> Iterator[str]:
    """Each step answers the pointer in the strip that is nearer to it than to its neighbours."""
    steps = list(told)
    edges = [
        float(LEFT),
        *((frame.x(a) + frame.x(b)) / 2 for a, b in zip(steps, steps[1:], strict=False)),
        float(WIDTH - RIGHT),
    ]
    yield from _hits([(edges[i], edges[i + 1] - edges[i], told[step]) for i, step in enumerate(steps)])


def _hits(tips: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    for x, width, words in tips:
        area = f'x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="hit" {area} data-tip="{escape(words)}"/>'


def _step_label(column: Sequence[int]) -> str:
    if len(column) > 1:
        return f"steps {column[0]:,}–{column[-1]:,}"
    return f"step {column[0]:,}" if column[0] else "before training"


def _shares(scores: Sequence[float], high: float, rows: int) -> list[float]:
    counts = [0] * rows
    for score in scores:
        counts[min(rows - 1, max(0, int(score / high * rows)))] += 1
    return [count / len(scores) for count in counts]


def _told(drawn: Sequence[Series]) -> str:
    """The chart in words, for a reader who does not see it."""
    ends = [(each.label, *each.curve[0], *each.curve[-1]) for each in drawn]
    return " ".join(
        f"{label}: {figure(a.mean)} at step {first}, {figure(b.mean)} at step {last}."
        for label, first, a, last, b in ends
    )
