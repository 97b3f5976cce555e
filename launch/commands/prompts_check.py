"""`dynalign prompts check`: the measures of anybody's prompts, beside those of the shipped ones.

Each file is a set. It is compared with the sets before it, with the shipped prompts, and with every
evaluation set that is on this machine or that the user names. Nothing is written without a folder.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.prompt_sources import BUILTIN
from dynalign.dataset.items import AXES
from dynalign.dataset.measures.examination import ExaminedSet, GivenSet, examine
from dynalign.dataset.measures.neighbours import evenly_spaced
from dynalign.launch.output_folder import output_folder
from dynalign.launch.prompt_check import SlowWork
from dynalign.launch.report.judge_tables import CardTable
from dynalign.launch.set_report.card import builtin_set
from dynalign.launch.set_report.evaluation_sets import BUILTIN_HELDOUT, present_sets, texts_of
from dynalign.launch.set_report.page import (
    MOST_SAMPLES,
    BrowsedText,
    PageSection,
    coverage_figures,
    neighbour_table,
    page,
    tabled,
    wording_figures,
)
from dynalign.launch.set_report.tables import (
    as_lines,
    axes_table,
    evaluation_table,
    leaks_table,
    repeats_table,
    wording_table,
)
from dynalign.rollout.prompt_sources import RowForm, read_rows
from dynalign.rollout.prompts import SHOWN_MISTAKES, checked_prompts
from dynalign.run_folder import durable

FORMAT = 1
"""Of check.json."""


@dataclass(frozen=True)
class CheckedSet:
    """A set as it was read: `CheckedSet(GivenSet("tasks.csv", …), {0: "tasks.csv:2"})`."""

    given: GivenSet
    """Its texts and axes."""
    places: dict[int, str]
    """Number of a text → where it is, for people."""


@dataclass(frozen=True)
class PromptsChecked:
    """All that a check found.

    Example: `PromptsChecked((CheckedSet(…),), (ExaminedSet(…),), (("builtin held-out", 44),))`.
    """

    sets: tuple[CheckedSet, ...]
    """What was read, the user's sets first, then the shipped one."""
    found: tuple[ExaminedSet, ...]
    """The measures of each set."""
    evaluation: tuple[tuple[str, int], ...]
    """Evaluation sets with their number of items."""


def prompts_check(
    sources: Sequence[str], form: RowForm, against: Sequence[str], out: str | None
) -> list[str]:
    """Measures sets of prompts. Returns the lines to print.

    sources: each as `prompts.source` names it. against: evaluation sets besides those on this machine. out:
    the folder of page.html and check.json; None to write nothing. Raises UserError with every mistake.
    """
    mistakes: list[Mistake] = []
    folder = _folder(out, mistakes)
    read = [_read(source, form, mistakes) for source in dict.fromkeys(sources)]
    evaluation = present_sets()
    for source in against:
        evaluation[source] = texts_of(source, mistakes)
    if mistakes:
        raise UserError(_bounded(mistakes))
    checked = _examined([each for each in read if each is not None], evaluation)
    lines = [line for table in check_tables(checked) for line in as_lines(table)]
    lines += [
        f"{each.name}: near-duplicates were looked for among {each.compared:,} of {each.texts:,} prompts"
        for each in checked.found
        if each.compared < each.texts
    ]
    if folder is None:
        return [*lines, "nothing was written; --out FOLDER writes a page and a JSON file"]
    _write(folder, checked)
    return [*lines, f"written: {folder / 'page.html'} and check.json"]


def _read(source: str, form: RowForm, mistakes: list[Mistake]) -> CheckedSet | None:
    """The prompts of a source with their axes. None, and a mistake, where there are none."""
    before = len(mistakes)
    places: dict[int, str] = {}
    axes: dict[str, list[str]] = {axis: [] for axis in AXES}

    def noted() -> Iterator[tuple[str, dict[str, object]]]:
        for name, row in read_rows(source, mistakes, RowForm(form.column, form.earlier_turns, AXES)):
            places[len(places)] = name
            for axis, values in axes.items():
                value = row.get(axis)
                values.append(value if isinstance(value, str) else "")
            yield name, row

    prompts = checked_prompts(noted(), mistakes, SlowWork("prompts read"), form.column)
    if not prompts and len(mistakes) == before:
        mistakes.append(Mistake(source, None, "holds no prompt", "add prompts, or name another file"))
    if len(mistakes) > before:
        return None
    known = {axis: tuple(values) for axis, values in axes.items() if all(values)}
    holds = (BUILTIN_HELDOUT,) if source == BUILTIN else ()
    texts = tuple(prompt.prompt for prompt in prompts)
    return CheckedSet(GivenSet(source, texts, known, {}, holds), places)


def _bounded(mistakes: list[Mistake]) -> list[Mistake]:
    """The first mistakes, and how many more there are."""
    more = len(mistakes) - SHOWN_MISTAKES
    if more <= 0:
        return mistakes
    last = Mistake("prompts", None, f"{more:,} more mistakes follow", "correct those above first")
    return [*mistakes[:SHOWN_MISTAKES], last]


def _examined(sets: list[CheckedSet], evaluation: dict[str, list[str]]) -> PromptsChecked:
    """The user's sets, compared with the shipped one, which is shown behind them."""
    beside = [] if any(each.given.name == BUILTIN for each in sets) else [CheckedSet(builtin_set(), {})]
    found = examine(
        [each.given for each in (*beside, *sets)], evaluation, SlowWork("prompts compared with others")
    )
    own = (*found[len(beside) :], *found[: len(beside)])
    items = tuple((name, len(texts)) for name, texts in evaluation.items())
    return PromptsChecked((*sets, *beside), own, items)


def check_tables(checked: PromptsChecked) -> list[CardTable]:
    """The tables that are printed."""
    tables: list[CardTable | None] = [wording_table(checked.found)]
    for each, found in zip(checked.sets, checked.found, strict=True):
        if each.places:
            tables += [
                axes_table(found),
                repeats_table(found, each.given.texts, each.places),
                leaks_table(found, each.places),
            ]
    return [table for table in (*tables, evaluation_table(checked.evaluation)) if table is not None]


def _folder(out: str | None, mistakes: list[Mistake]) -> Path | None:
    """The folder to write to. Adds a mistake if it cannot be written to."""
    if out is None:
        return None
    try:
        return output_folder("--out", out)
    except UserError as error:
        mistakes += error.mistakes
        return None


def _write(folder: Path, checked: PromptsChecked) -> None:
    """Writes the page and the JSON file. Raises UserError if the disk refuses."""
    content = {
        "format": FORMAT,
        "sets": [asdict(each) for each in checked.found],
        "evaluation": dict(checked.evaluation),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        durable.write(folder / "page.html", check_page(checked))
        durable.write(folder / "check.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        rule = f"cannot be written to ({error.strerror or error})"
        raise UserError(
            [Mistake("--out", str(folder), rule, "free space, or name another folder")]
        ) from error


def check_page(checked: PromptsChecked) -> str:
    """The page of a check."""
    sections = [PageSection("Wording", tabled(wording_table(checked.found)))]
    samples: list[BrowsedText] = []
    own = sum(bool(each.places) for each in checked.sets)
    for each, found in zip(checked.sets, checked.found, strict=True):
        if not each.places:
            continue
        given = each.given
        tables = (
            axes_table(found),
            neighbour_table(given, found),
            repeats_table(found, given.texts, each.places),
            leaks_table(found, each.places),
        )
        figures = (*wording_figures(given, found), *tabled(*tables), *coverage_figures(given))
        sections.append(PageSection(given.name, figures))
        samples += [
            BrowsedText(
                each.places[number],
                given.texts[number],
                {"set": given.name} | {axis: _value(given, axis, number) for axis in AXES},
            )
            for number in evenly_spaced(len(given.texts), MOST_SAMPLES // own)
        ]
    sections.append(PageSection("Compared with", tabled(evaluation_table(checked.evaluation))))
    names = ", ".join(each.given.name for each in checked.sets if each.places)
    every = sum(len(each.given.texts) for each in checked.sets if each.places)
    return page(names, [("prompts", f"{every:,}")], sections, samples, every)


def _value(given: GivenSet, axis: str, number: int) -> str:
    return given.axes[axis][number] if axis in given.axes else ""
