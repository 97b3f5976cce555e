"""`evaluation.html`: the card of an evaluation as one page that a browser opens without any network.

Text that a model wrote is data: it is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dynalign.evaluation.pairwise.card import EvaluationCard
from dynalign.evaluation.pairwise.records import ComparedPrompt
from dynalign.launch.report.evaluation_suites import SuiteScore
from dynalign.launch.report.evaluation_tables import (
    card_facts,
    conclusion,
    paper_table,
    percent,
    rate_rows,
    sections,
    share,
)
from dynalign.launch.report.figures import ABSENT

HERE = Path(__file__).parent
SHOWN_PAIRS = 8
"""Pairs of each kind on the page; evaluation.json has all."""
_WIDTH = 720
_LABELS = 270
"""Width for the rows' names, in the drawing's units; one is about a pixel."""
_READINGS = 190
"""Width for the figures at the right."""
_ROW = 30
_FOOT = 24
_CELL = 76


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A prompt with both answers and what the judges said: `ShownPair("How do I …", "87.5 %", …)`."""

    prompt: str
    """The user's text."""
    value: str
    """The mean over judges and orders."""
    answer: str
    """Of the model under test."""
    other: str
    """Of the other one."""
    verdicts: tuple[tuple[str, str, str], ...]
    """Judge, verdict when the answer was first, and when it was second."""


def page(card: EvaluationCard, suites: Sequence[SuiteScore] = ()) -> str:
    """The HTML page of a card. suites: what `evaluate suite` found of the same model."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("evaluation.html.j2").render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        title=card.facts.title,
        facts=card_facts(card),
        conclusion=conclusion(card.figures),
        warnings=card.figures.warnings,
        chart=rate_chart(card),
        judge_map=judge_map(card),
        sections=[*sections(card)],
        paper=paper_table(card, suites),
        models=(card.figures.model, card.figures.against),
        browser=browser(card),
    )


def rate_chart(card: EvaluationCard) -> Markup:
    """Every win rate with its interval, beside 50 %."""
    rows = rate_rows(card)
    height = _ROW * len(rows) + _FOOT
    parts = []
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        kind = "rule" if at == 0.5 else "grid"
        parts.append(f'<path class="{kind}" d="M{_x(at):.1f} 0V{height - _FOOT}"/>')
        label = f'x="{_x(at):.1f}" y="{height - 8}" text-anchor="middle"'
        parts.append(f'<text class="note" {label}>{100 * at:.0f} %</text>')
    for row, (name, found, _) in enumerate(rows):
        y = _ROW * row + _ROW / 2
        kind = "c0" if row == 0 else "c5"
        parts.append(f'<text x="0" y="{y + 5}">{escape(name)}</text>')
        parts.append(f'<text x="{_WIDTH}" y="{y + 5}" text-anchor="end">{escape(share(found))}</text>')
        if found is None:
            continue
        if found.low is not None and found.high is not None:
            ends = (max(0.0, found.low), min(1.0, found.high))
            parts.append(f'<path class="line {kind}" d="M{_x(ends[0]):.1f} {y}H{_x(ends[1]):.1f}"/>')
        parts.append(f'<circle class="dot {kind}" cx="{_x(found.mean):.1f}" cy="{y}" r="4.5"/>')
    return _svg(_WIDTH, height, "Win rates with 95 % intervals", parts)


def judge_map(card: EvaluationCard) -> Markup | None:
    """On how many verdicts two judges agree, as a heat map; None for one judge."""
    names = card.comparison.judges
    if len(names) < 2:
        return None
    parts = []
    for row, name in enumerate(names):
        y = _CELL * row
        parts.append(f'<text x="0" y="{y + _CELL / 2 + 5}">{row + 1}. {escape(name)}</text>')
        for column, agreed in enumerate(card.figures.agree_JJ[row]):
            x = _LABELS + _CELL * column
            shade = 0.0 if agreed is None else max(0.05, agreed)
            box = f'x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_CELL - 2}"'
            parts.append(f'<rect class="fill c0" {box} opacity="{0.85 * shade:.2f}"/>')
            centre = f'x="{x + _CELL / 2}" y="{y + _CELL / 2 + 5}" text-anchor="middle"'
            parts.append(f"<text {centre}>{percent(agreed)}</text>")
        foot = f'x="{_LABELS + _CELL * row + _CELL / 2}" y="{_CELL * len(names) + 18}" text-anchor="middle"'
        parts.append(f'<text class="note" {foot}>{row + 1}</text>')
    width = _LABELS + _CELL * len(names)
    return _svg(width, _CELL * len(names) + _FOOT, "Share of verdicts on which two judges agree", parts)


def browser(card: EvaluationCard) -> list[tuple[str, list[ShownPair]]]:
    """The pairs that are won most, lost most, and disputed most."""
    judged = [row for row in card.comparison.compared if row.value is not None]
    by_value = sorted(judged, key=lambda row: (-(row.value or 0.0), row.prompt.key))
    disputed = sorted(judged, key=lambda row: (-dispute(row), row.prompt.key))
    kinds = (
        ("most won", [row for row in by_value if (row.value or 0.0) > 0.5]),
        ("most lost", [row for row in by_value[::-1] if (row.value or 0.0) < 0.5]),
        ("most disputed", [row for row in disputed if dispute(row) > 0]),
    )
    return [(name, [_shown(card, row) for row in rows[:SHOWN_PAIRS]]) for name, rows in kinds]


def dispute(row: ComparedPrompt) -> float:
    """The variance of all verdicts on a pair, over judges and orders."""
    numbers = {"win": 1.0, "tie": 0.5, "loss": 0.0}
    labels = [label for each in row.verdicts_J for label in (each.when_first, each.when_second)]
    values = [numbers[label] for label in labels if label in numbers]
    mean = sum(values) / len(values) if values else 0.0
    return sum((value - mean) ** 2 for value in values) / len(values) if values else 0.0


def _shown(card: EvaluationCard, row: ComparedPrompt) -> ShownPair:
    verdicts: Sequence[tuple[str, str, str]] = [
        (name, _with_words(each.when_first, each.said_first), _with_words(each.when_second, each.said_second))
        for name, each in zip(card.comparison.judges, row.verdicts_J, strict=True)
    ]
    return ShownPair(
        row.prompt.prompt, percent(row.value), row.answer.text or ABSENT, row.other.text or ABSENT,
        tuple(verdicts),
    )  # fmt: skip


def _with_words(label: str, said: str) -> str:
    return f"{label}: {said}" if said else label


def _x(share_: float) -> float:
    """The horizontal position of a share between 0 and 1."""
    return _LABELS + share_ * (_WIDTH - _LABELS - _READINGS - 12)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    """Parts are made of numbers and escaped words only."""
    most = f'style="max-width: {1.4 * width:.0f}px"'  # few judges: else two cells would fill a screen
    head = f'<svg viewBox="0 0 {width} {height}" {most} role="img" aria-label="{label}">'
    return Markup(head + "".join(parts) + "</svg>")
