"""What was measured of sets of prompts, as tables: for the terminal, the card and the page."""

from collections.abc import Mapping, Sequence

from dynalign.dataset.measures.contamination import GRAM_WORDS
from dynalign.dataset.measures.diversity import Spread
from dynalign.dataset.measures.examination import ExaminedSet
from dynalign.dataset.measures.near_duplicates import THRESHOLD
from dynalign.dataset.measures.set_figures import SetFigures
from dynalign.launch.report.figures import ABSENT, figure
from dynalign.launch.report.judge_tables import CardTable

SHOWN = 10
"""Near-duplicates and leaks that are listed; the JSON file has all."""
_LONGEST = 90


def wording_table(sets: Sequence[ExaminedSet]) -> CardTable:
    """The measures of wording and length, a column for each set."""
    varied = [each.diversity for each in sets]
    size = next((each.size for each in varied if each), 0)
    rows = [
        ("prompts", *(f"{each.texts:,}" for each in sets)),
        ("different in their words", *(f"{each.distinct:,}" for each in sets)),
        ("words of a prompt, median", *(figure(each.word_counts.median) for each in sets)),
        ("words, 5 % to 95 %", *(_span(each.word_counts.p5, each.word_counts.p95) for each in sets)),
        (
            "words, fewest to most",
            *(f"{each.word_counts.least:,} to {each.word_counts.most:,}" for each in sets),
        ),
        (f"Vendi score of {size}", *(_spread(each.vendi if each else None) for each in varied)),
        (f"compression ratio of {size}", *(_spread(each.compression if each else None) for each in varied)),
        (f"self-BLEU of {size}", *(_spread(each.self_bleu if each else None) for each in varied)),
        ("most frequent name", *(_name(each) for each in sets)),
        ("nearest other prompt, median", *(_nearness(each, 0.5) for each in sets)),
        ("nearest other prompt, 95 %", *(_nearness(each, 0.95) for each in sets)),
        ("near-duplicates", *(f"{len(each.near_duplicates):,}" for each in sets)),
        ("with text of an evaluation set", *(f"{len(each.leaks):,}" for each in sets)),
    ]
    caption = (
        "Vendi score, compression ratio and self-BLEU depend on the number of texts: all are measured on "
        f"samples of {size}, mean and range over the samples. A higher Vendi score is more varied; a higher "
        "compression ratio or self-BLEU is more repetitive. Nearest: Jaccard similarity of words and pairs."
    )
    return CardTable("Wording", ("", *(each.name for each in sets)), tuple(rows), caption, wide=True)


def _span(low: int, high: int) -> str:
    return f"{low:,} to {high:,}"


def _spread(found: Spread | None) -> str:
    if found is None:
        return ABSENT
    ends = "" if found.low == found.high else f" ({figure(found.low)} to {figure(found.high)})"
    return figure(found.mean) + ends


def _name(each: ExaminedSet) -> str:
    if not each.names:
        return ABSENT
    return f"{each.names[0].name} in {each.names[0].texts:,} ({each.names[0].share:.1%})"


def _nearness(each: ExaminedSet, share: float) -> str:
    similar = sorted(one.similarity for one in each.nearest)
    return figure(similar[min(len(similar) - 1, int(share * len(similar)))]) if similar else ABSENT


def axes_table(each: ExaminedSet) -> CardTable | None:
    """How evenly the axes are covered; None where no axis is known."""
    if not each.axes:
        return None
    rows = tuple(
        (
            axis.axis,
            f"{len(axis.counts):,}",
            f"{axis.entropy:.4f}",
            f"{axis.smallest_share:.2f}",
            min((count, place, value) for place, (value, count) in enumerate(axis.counts.items()))[2],
        )
        for axis in each.axes
    )
    head = ("axis", "values", "normalized entropy", "smallest share", "rarest value")
    caption = "Entropy 1 is even. The smallest share is of the rarest value, 1 where it has its equal share."
    return CardTable("Coverage", head, rows, caption, wide=True)


def fates_table(figures: SetFigures) -> CardTable:
    """What became of the items."""
    rows = [
        ("asked", f"{figures.asked:,}"),
        ("accepted", f"{figures.accepted:,}"),
        *((f"rejected: {reason}", f"{count:,}") for reason, count in figures.rejected.items()),
        *((f"failed: {reason}", f"{count:,}") for reason, count in figures.failed.items()),
        ("accepted, split train", f"{figures.train:,}"),
        ("accepted, split heldout", f"{figures.heldout:,}"),
        ("goals of accepted prompts", f"{figures.goals:,}"),
        ("goals in both splits", f"{figures.goals_in_both:,}"),
    ]
    caption = "Every item that was asked for was accepted, rejected or failed."
    return CardTable("Items", ("items", "number"), tuple(rows), caption)


def evaluation_table(evaluation: Sequence[tuple[str, int]]) -> CardTable:
    """What the prompts were compared with."""
    rows = tuple((name, f"{count:,}") for name, count in evaluation)
    caption = (
        f"Looked for: {GRAM_WORDS} words in a row, whatever case, spacing and punctuation, and "
        "near-duplicates. Sets that are not on this machine were not compared."
    )
    return CardTable("Compared with", ("evaluation set", "items"), rows, caption)


def repeats_table(
    each: ExaminedSet, texts: Sequence[str], places: Mapping[int, str] | None = None
) -> CardTable | None:
    """The most similar near-duplicates; None where there is none. places: number → name for people."""
    if not each.near_duplicates:
        return None
    worst = sorted(each.near_duplicates, key=lambda one: (-one.twin.similarity, one.number))[:SHOWN]
    rows = tuple(
        (
            (places or {}).get(one.number, f"prompt {one.number + 1:,}"),
            f"{one.twin.source} {one.twin.number + 1:,}"
            if one.twin.source
            else f"prompt {one.twin.number + 1:,}",
            f"{one.twin.similarity:.2f}",
            shortened(texts[one.number]),
        )
        for one in worst
    )
    caption = (
        f"Jaccard similarity of words and word pairs, {THRESHOLD} or more; the first of each pair would stay."
    )
    return CardTable(
        f"Near-duplicates in {each.name}", ("prompt", "near to", "similarity", ""), rows, caption
    )


def leaks_table(each: ExaminedSet, places: Mapping[int, str] | None = None) -> CardTable | None:
    """Prompts with text of an evaluation set; None where there is none."""
    if not each.leaks:
        return None
    rows = tuple(
        (
            (places or {}).get(leak.number, f"prompt {leak.number + 1:,}"),
            f"{leak.source} {leak.item + 1:,}",
            shortened(leak.words),
        )
        for leak in each.leaks[:SHOWN]
    )
    return CardTable(f"Contamination of {each.name}", ("prompt", "item", "words"), rows, "")


def shortened(text: str) -> str:
    """One line of a text."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def as_lines(table: CardTable) -> list[str]:
    """A table for the terminal: its title, its aligned columns."""
    every = [table.head, *table.rows] if any(table.head) else list(table.rows)
    widths = [max(len(row[column]) for row in every) for column in range(len(table.head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every]
    return [table.title, *(f"  {line.rstrip()}" for line in lines)]


def as_markdown(table: CardTable) -> list[str]:
    """A table in Markdown, with its heading and caption."""
    head = [_cell(cell) for cell in table.head]
    rows = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows]
    lines = [f"## {table.title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows, ""]
    return [*lines, table.caption, ""] if table.caption else lines


def _cell(text: str) -> str:
    """Text that a model wrote stays text: no cell ends early, and no markup begins."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
