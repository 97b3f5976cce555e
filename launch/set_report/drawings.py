"""Drawings of a set: counts by two axes as a grid, and how often a value occurs as bars."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from dynalign.launch.report.figures import figure

_LABELS = 240
_LETTER = 4.6
"""Height of a slanted letter of a column's label."""
_LETTER_WIDE = 6.2
"""Its width."""
_CELL_HIGH = 24
_WIDTH = 760
_LONGEST_LABEL = 30
_BARS_HIGH = 190
_FOOT = 36


def grid(
    title: str, rows: Sequence[str], columns: Sequence[str], counts: Mapping[tuple[str, str], int]
) -> Markup:
    """Counts by (row, column): darker where more are, outlined where none is.

    Each cell shows its count and names itself to the pointer.
    """
    width = max(20.0, min(90.0, (_WIDTH - _LABELS) / max(1, len(columns))))
    top = 24 + _LETTER * max((len(_label(column)) for column in columns), default=0)
    most = max(counts.values(), default=0) or 1
    parts: list[str] = []
    for place, column in enumerate(columns):
        x = _LABELS + (place + 0.5) * width
        turn = f'transform="rotate(-40 {x:.1f} {top - 8:.1f})"'
        parts.append(f'<text x="{x:.1f}" y="{top - 8:.1f}" {turn}>{escape(_label(column))}</text>')
    for line, row in enumerate(rows):
        y = top + line * _CELL_HIGH
        middle = y + _CELL_HIGH / 2 + 4
        parts.append(
            f'<text x="{_LABELS - 8}" y="{middle:.1f}" text-anchor="end">{escape(_label(row))}</text>'
        )
        for place, column in enumerate(columns):
            count = counts.get((row, column), 0)
            x = _LABELS + place * width
            box = f'x="{x + 1:.1f}" y="{y + 1}" width="{width - 2:.1f}" height="{_CELL_HIGH - 2}"'
            opacity = 0.1 + 0.6 * count / most if count else 0.0
            tip = f"<title>{escape(row)} · {escape(column)}: {count:,}</title>"
            parts.append(f'<rect class="fill c0" {box} opacity="{opacity:.2f}"/>')
            parts.append(f'<rect class="cell" {box}>{tip}</rect>')
            if count:
                centre = f'x="{x + width / 2:.1f}" y="{middle:.1f}" text-anchor="middle"'
                parts.append(f'<text class="note" {centre} pointer-events="none">{count:,}</text>')
    ends = (
        _LABELS + (place + 0.5) * width + _LETTER_WIDE * len(_label(column))
        for place, column in enumerate(columns)
    )
    return _drawing(title, max(_WIDTH + 90.0, *ends), top + len(rows) * _CELL_HIGH + 4, parts)


def bars(title: str, unit: str, values: Sequence[float], edges: Sequence[float]) -> Markup:
    """How many of the values are in each bin, a bar a bin.

    edges: ascending; the last bin holds its upper end.
    """
    bins = len(edges) - 1
    counts = [0] * bins
    for value in values:
        place = sum(value >= edge for edge in edges[1:-1])
        counts[place] += 1
    most = max(counts, default=0) or 1
    width = (_WIDTH - 20) / bins
    parts: list[str] = []
    for place, count in enumerate(counts):
        high = (_BARS_HIGH - 24) * count / most
        x = 10 + place * width
        box = f'x="{x + 1:.1f}" y="{_BARS_HIGH - high:.1f}" width="{width - 2:.1f}" height="{high:.1f}"'
        span = f"{figure(edges[place])} to {figure(edges[place + 1])} {unit}"
        parts.append(f'<rect class="fill c0" {box}><title>{escape(span)}: {count:,}</title></rect>')
        if count:
            at = f'x="{x + width / 2:.1f}" y="{_BARS_HIGH - high - 5:.1f}" text-anchor="middle"'
            parts.append(f'<text class="note" {at}>{count:,}</text>')
    for place, edge in enumerate(edges):
        at = f'x="{10 + place * width:.1f}" y="{_BARS_HIGH + 16}" text-anchor="middle"'
        parts.append(f'<text class="note" {at}>{figure(edge)}</text>')
    parts.append(
        f'<text class="note" x="{_WIDTH}" y="{_BARS_HIGH + 32}" text-anchor="end">{escape(unit)}</text>'
    )
    return _drawing(title, _WIDTH + 10, _BARS_HIGH + _FOOT, parts)


def _label(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def _drawing(title: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")
