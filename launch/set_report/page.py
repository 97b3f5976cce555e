"""`page.html`: what was measured of prompts, as one page that a browser opens without any network.

Text that a model wrote is data: it is escaped.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dynalign.dataset.measures.coverage import crossed
from dynalign.dataset.measures.examination import ExaminedSet, GivenSet
from dynalign.launch.report import judge_card
from dynalign.launch.report.judge_tables import CardTable
from dynalign.launch.report.scales import nice_ticks
from dynalign.launch.set_report.drawings import bars, grid

HERE = Path(__file__).parent
MOST_SAMPLES = 600
"""Prompts in the page's browser; the files have all."""
_LONGEST_SAMPLE = 3_000
_MOST_VALUES = 40
"""Values of an axis that a grid can show."""


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A drawing or a table with its texts: `PageFigure("Lengths", "Words of a prompt.", None, svg)`."""

    title: str
    """What is shown."""
    caption: str
    """How it was computed."""
    table: CardTable | None
    """The table; None for a drawing."""
    drawing: Markup | None = None
    """The drawing; None for a table."""
    wide: bool = False
    """Whether it takes the page's whole width."""


@dataclass(frozen=True, slots=True)
class BrowsedText:
    """A prompt in the browser: `BrowsedText("p00017", "How do I mend a net?", {"fate": "accepted"}, "")`."""

    name: str
    """Its id or place."""
    prompt: str
    """The text."""
    fields: Mapping[str, str]
    """What it can be chosen by; the same fields for all prompts of a page."""
    more: str = ""
    """What else is to say, such as why it was rejected."""


@dataclass(frozen=True, slots=True)
class PageSection:
    """A heading with its figures: `PageSection("Coverage", (PageFigure(…),))`."""

    heading: str
    """The heading."""
    figures: tuple[PageFigure, ...]
    """What is below it."""


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[PageSection],
    samples: Sequence[BrowsedText],
    every: int,
) -> str:
    """The HTML page. samples: prompts for its browser. every: how many there are in all."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters["sha256"] = _sha256
    which = f"{len(samples):,} of {every:,}, evenly spaced" if len(samples) < every else f"All {every:,}"
    style = Path(judge_card.__file__).parent / "report.css"
    return environment.get_template("page.html.j2").render(
        style=Markup(style.read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        title=title,
        facts=facts,
        sections=[(section.heading, section.figures) for section in sections if section.figures],
        note=f"{which}. Texts are cut at {_LONGEST_SAMPLE:,} characters.",
        samples=[
            {"name": each.name, "prompt": _cut(each.prompt), "fields": dict(each.fields), "more": each.more}
            for each in samples
        ],
    )


def _sha256(text: str) -> str:
    """A script's hash in the form of a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SAMPLE else text[:_LONGEST_SAMPLE] + "…"


def tabled(*tables: CardTable | None) -> tuple[PageFigure, ...]:
    """Tables as figures; those that are None are left out."""
    return tuple(
        PageFigure(table.title, table.caption, table, wide=table.wide)
        for table in tables
        if table is not None
    )


def coverage_figures(given: GivenSet) -> tuple[PageFigure, ...]:
    """A grid for each two axes of a set."""
    values = {
        axis: list(dict.fromkeys((*given.known.get(axis, ()), *sorted(set(of_texts)))))
        for axis, of_texts in given.axes.items()
    }
    drawn = [axis for axis in values if 1 < len(values[axis]) <= _MOST_VALUES]
    return tuple(
        PageFigure(
            f"{one} × {other}",
            "Prompts by the values of two axes; an empty cell has none.",
            None,
            grid(
                f"prompts by {one} and {other}",
                values[one],
                values[other],
                crossed((one, other), given.axes[one], given.axes[other]).counts,
            ),
            wide=True,
        )
        for one, other in combinations(drawn, 2)
    )


def rejection_figures(items: Sequence[Mapping[str, object]], axis: str) -> tuple[PageFigure, ...]:
    """A grid of the items that were not accepted, by reason and by the value of an axis."""
    counts = Counter((str(item["reason"]), str(item[axis])) for item in items if item["fate"] != "accepted")
    if not counts:
        return ()
    reasons = [reason for reason, _ in Counter(reason for reason, _ in counts.elements()).most_common()]
    values = sorted({str(item[axis]) for item in items})
    if len(values) > _MOST_VALUES:
        return ()
    drawing = grid(f"items not accepted, by reason and {axis}", reasons, values, counts)
    caption = "Items that were rejected or failed, by their reason."
    return (PageFigure(f"reason × {axis}", caption, None, drawing, wide=True),)


def wording_figures(given: GivenSet, found: ExaminedSet) -> tuple[PageFigure, ...]:
    """How long the prompts of a set are, and how near each is to its nearest other one."""
    lengths = [len(text.split()) for text in given.texts]
    ticks = nice_ticks(0.0, max(1.0, float(found.word_counts.p95)))
    edges = [*ticks, *([float(found.word_counts.most)] if found.word_counts.most > ticks[-1] else [])]
    nearest = [each.similarity for each in found.nearest]
    return (
        PageFigure(
            f"Lengths in {given.name}",
            "Words of a prompt. The last bar holds all longer ones.",
            None,
            bars(f"lengths of the prompts of {given.name}", "words", lengths, edges),
        ),
        PageFigure(
            f"Nearest neighbours in {given.name}",
            "Jaccard similarity of words and word pairs between each prompt and its most similar other one.",
            None,
            bars(f"similarity of nearest prompts in {given.name}", "similarity", nearest, _TENTHS),
        ),
    )


_TENTHS = [tenth / 10 for tenth in range(11)]


def neighbour_table(given: GivenSet, found: ExaminedSet, most: int = 10) -> CardTable | None:
    """The nearest pairs of prompts, each pair once; None without any."""
    pairs = {
        (min(each.number, each.other), max(each.number, each.other)): each.similarity
        for each in found.nearest
    }
    if not pairs:
        return None
    closest = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    rows = tuple(
        (f"{similarity:.2f}", _cut(given.texts[one]), _cut(given.texts[other]))
        for (one, other), similarity in closest
    )
    head = ("similarity", "prompt", "its neighbour")
    return CardTable(f"Nearest pairs in {given.name}", head, rows, "", wide=True)
