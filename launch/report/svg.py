"""The parts of a drawing as inline SVG: plot area, axes, lines, areas that show their values to the pointer.

No chart library: the page then needs no script to show a chart, prints, follows the reader's light or dark
theme through CSS classes, and takes some hundred kilobytes, where a bundled library alone takes five
megabytes. Every text that enters is escaped.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dynalign.launch.report.figures import MINUS, figure
from dynalign.launch.report.scales import step_ticks

WIDTH = 540
"""Width of a drawing in its own units; a wide screen shows one as about one pixel."""
HEIGHT = 250
"""Height of a drawing."""
LEFT = 56
"""Left margin of the plot area."""
RIGHT = 12
"""Right margin."""
TOP = 20
"""Top margin."""
BOTTOM = 34
"""Bottom margin."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot area: steps or another quantity on x, a quantity on y, both linear."""

    x_low: float
    """The step, or value, at the left edge."""
    x_high: float
    """That at the right edge."""
    y_ticks: tuple[float, ...]
    """Ticks of the y axis, ascending; the first and the last are its ends."""

    def x(self, step: float) -> float:
        """The horizontal position of a step or value, in the drawing's units."""
        return LEFT + (step - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The vertical position of a value, in the drawing's units."""
        low = self.y_ticks[0]
        high = self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def drawing(label: str, parts: Sequence[str]) -> Markup:
    """The drawing. Parts are made here and in charts.py, from numbers and escaped words only.

    label: what it shows, for screen readers.
    """
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def y_axis(frame: Frame) -> Iterator[str]:
    """Grid lines with their values."""
    gap = frame.y_ticks[1] - frame.y_ticks[0]
    digits = len(f"{gap:f}".rstrip("0").partition(".")[2])
    for tick in frame.y_ticks:
        y = frame.y(tick)
        label = figure(tick) if gap < 1e-4 else f"{tick:,.{digits}f}".replace("-", MINUS)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def axes(frame: Frame) -> Iterator[str]:
    """Both axes of a chart whose x axis is linear in steps."""
    yield from y_axis(frame)
    for tick in step_ticks(frame.x_low, frame.x_high):
        yield f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{tick:,}</text>'
    yield axis_name("step")


def x_labels(frame: Frame, ticks: Sequence[float]) -> Iterator[str]:
    """The values below an x axis that is not one of steps."""
    for tick in ticks:
        yield f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{figure(tick)}</text>'


def axis_name(words: str) -> str:
    """What the x axis shows."""
    return f'<text class="note" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(words)}</text>'


def column_labels(columns: Sequence[Sequence[int]], width: float) -> Iterator[str]:
    """The x axis of a chart of columns: the first step of about every tenth of them."""
    every = math.ceil(len(columns) / 10)
    for index in range(0, len(columns), every):
        x = LEFT + (index + 0.5) * width
        yield f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{columns[index][0]:,}</text>'
    yield axis_name("step")


def marked_steps(frame: Frame, marks: Mapping[int, str]) -> Iterator[str]:
    """Vertical lines before steps, with their labels."""
    for step, label in marks.items():
        x = frame.x(step - 0.5)
        yield f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield f'<text class="note" x="{x:.1f}" y="{TOP - 5}" text-anchor="middle">{escape(label)}</text>'


def polyline(frame: Frame, points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points. kind: its CSS classes."""
    drawn = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in points)
    return f'<polyline class="{kind}" points="{drawn}"/>'


def readings(frame: Frame, texts: Sequence[tuple[float, str]]) -> Iterator[str]:
    """Makes the pointer show the text of the nearest step or value. texts: (step or value, its text),
    ascending."""
    places = [frame.x(at) for at, _ in texts]
    edges = [
        float(LEFT),
        *((a + b) / 2 for a, b in zip(places, places[1:], strict=False)),
        float(WIDTH - RIGHT),
    ]
    yield from hits([(edges[i], edges[i + 1] - edges[i], words) for i, (_, words) in enumerate(texts)])


def hits(tips: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Invisible areas that show a text to the pointer; tips are (left edge, width, text)."""
    for x, width, words in tips:
        area = f'x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        yield f'<rect class="hit" {area} data-tip="{escape(words)}"/>'
