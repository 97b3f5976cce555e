"""`judge.html`: the card of a judge check as one page that a browser opens without any network.

Text that a model wrote is data: it is escaped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dynalign.evaluation.judge_check.bar import LEAST_AUC
from dynalign.evaluation.judge_check.card import JudgeCard
from dynalign.evaluation.judge_check.figures import JudgeFigures
from dynalign.launch.report.figures import ABSENT, hundredths, interval
from dynalign.launch.report.judge_tables import card_facts, card_sections, order_rows

HERE = Path(__file__).parent
SHOWN_PROMPTS = 24
"""Prompts whose texts are on the page; judge.json has all."""
_WIDTH = 640
_LABELS = 235
"""Width for the rows' names, in the drawing's units; one is about a pixel."""
_READINGS = 200
"""Width for the figures at the right."""
_ROW = 30
_FOOT = 24


@dataclass(frozen=True, slots=True)
class ShownText:
    """A judged text with its scores: `ShownText("half", "Find the edges", ("2.31", "3.00"))`."""

    name: str
    """The tier or variant."""
    text: str
    """What was judged."""
    scores: tuple[str, ...]
    """Each judge's score, in points."""


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """A prompt with the texts that were judged: `ShownPrompt("How do I mend a net?", (ShownText(…),))`."""

    prompt: str
    """The user's text."""
    texts: tuple[ShownText, ...]
    """The planted answers and the variants."""


def page(card: JudgeCard) -> str:
    """The HTML page of a card."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    charts = [order_chart(figures) for figures in card.judges]
    return environment.get_template("judge_card.html.j2").render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        title=card.facts.run,
        facts=card_facts(card),
        sections=[
            (section, charts[index] if index < len(charts) else None)
            for index, section in enumerate(card_sections(card))
        ],
        judges=[figures.judge for figures in card.judges],
        prompts=list(_shown(card))[:SHOWN_PROMPTS],
    )


def order_chart(figures: JudgeFigures) -> Markup:
    """The AUC of each comparison of planted answers, with its interval, beside guessing and the bar."""
    rows = order_rows(figures)
    height = _ROW * len(rows) + _FOOT
    parts = [*_rules(height)]
    for row, (name, found) in enumerate(rows):
        y = _ROW * row + _ROW / 2
        kind = "c0" if row == 0 else "c5"
        parts.append(f'<text x="0" y="{y + 5}">{escape(name)}</text>')
        parts.append(f'<text x="{_WIDTH}" y="{y + 5}" text-anchor="end">{escape(interval(found))}</text>')
        if found is None:
            continue
        if found.low is not None and found.high is not None:
            parts.append(f'<path class="line {kind}" d="M{_x(found.low):.1f} {y}H{_x(found.high):.1f}"/>')
        parts.append(f'<circle class="dot {kind}" cx="{_x(found.mean):.1f}" cy="{y}" r="4.5"/>')
    label = "AUC of planted answers, with 95 % intervals"
    svg = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return Markup(svg)


def _x(share: float) -> float:
    """The horizontal position of an AUC between 0 and 1."""
    return _LABELS + share * (_WIDTH - _LABELS - _READINGS - 12)


def _rules(height: int) -> Iterator[str]:
    foot = height - _FOOT
    for share, words in ((0.0, "0"), (0.5, "0.5"), (LEAST_AUC, f"{LEAST_AUC:g}"), (1.0, "1")):
        x = _x(share)
        kind = "grid" if share in (0.0, 1.0) else "rule"
        yield f'<path class="{kind}" d="M{x:.1f} 0V{foot}"/>'
        yield f'<text class="note" x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{words}</text>'


def _shown(card: JudgeCard) -> Iterator[ShownPrompt]:
    """The planted answers and variants of each prompt, with all judges' scores."""
    by_prompt: dict[str, list[ShownText]] = {}
    words: dict[str, str] = {}
    for place, group in enumerate(card.groups):
        if group.kind not in ("tiers", "variants"):
            continue
        given = [answers.given[place].scores_G for answers in card.answers]
        words[group.prompt_id] = group.prompt
        by_prompt.setdefault(group.prompt_id, []).extend(
            ShownText(name, text, _scores([scores_G[number] for scores_G in given]))
            for number, (name, text) in enumerate(zip(group.names_G, group.texts_G, strict=True))
            if name != "original"
        )
    for prompt_id, texts in by_prompt.items():
        yield ShownPrompt(words[prompt_id], tuple(texts))


def _scores(scores: Sequence[float | None]) -> tuple[str, ...]:
    return tuple(ABSENT if score is None else hundredths(score) for score in scores)
