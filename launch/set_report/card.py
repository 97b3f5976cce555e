"""The card of a made set: README.md for the hub, card.json with the same figures, page.html to look at.

Everything is computed from the set's files, so that the card can be made again by anybody who has them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.dataset.measures.examination import GivenSet
from dynalign.dataset.measures.neighbours import evenly_spaced
from dynalign.dataset.measures.set_figures import FORMAT, SetFigures, set_figures
from dynalign.dataset.measures.set_files import MadeSet, Record, read_set
from dynalign.launch.report.judge_tables import CardTable
from dynalign.launch.set_report.evaluation_sets import BUILTIN_HELDOUT, present_sets
from dynalign.launch.set_report.page import (
    MOST_SAMPLES,
    BrowsedText,
    PageSection,
    coverage_figures,
    neighbour_table,
    page,
    rejection_figures,
    tabled,
    wording_figures,
)
from dynalign.launch.set_report.tables import (
    as_lines,
    as_markdown,
    axes_table,
    evaluation_table,
    fates_table,
    leaks_table,
    repeats_table,
    wording_table,
)
from dynalign.rollout.prompts import load_prompts
from dynalign.run_folder import durable

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Categories of the hub: fewer prompts than the number."""


def builtin_set() -> GivenSet:
    """The shipped prompts, to show beside another set."""
    shipped = load_prompts("builtin")
    prompts = (*shipped.train, *shipped.heldout)
    domains = tuple(prompt.domain for prompt in prompts)
    texts = tuple(prompt.prompt for prompt in prompts)
    return GivenSet("builtin", texts, {"domain": domains}, {}, holds=(BUILTIN_HELDOUT,))


def write_card(
    folder: Path,
    beside: Sequence[GivenSet] = (),
    evaluation: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Writes README.md, card.json and page.html into the folder of a made set.

    beside: further sets to show beside it and the shipped prompts, such as one of a generator without
    steering. evaluation: name → texts to compare with; None for those that are on this machine. Returns the
    lines to print. Raises UserError for a folder without a made set, or one that cannot be written to.
    """
    made = read_set(folder)
    figures = set_figures(
        made, [builtin_set(), *beside], present_sets() if evaluation is None else evaluation
    )
    try:
        durable.write(folder / "README.md", readme(made, figures))
        durable.write(folder / "card.json", as_json(figures))
        durable.write(folder / "page.html", set_page(made, figures))
    except OSError as error:
        rule = f"cannot be written to ({error.strerror or error})"
        raise UserError(
            [Mistake(str(folder), None, rule, "free space, or correct its permissions")]
        ) from error
    lines = [line for table in card_tables(figures) for line in as_lines(table)]
    return [*lines, f"the card: {folder / 'page.html'}, README.md and card.json beside it"]


def as_json(figures: SetFigures) -> str:
    """The figures as JSON; a figure that is not defined is null."""
    return (
        json.dumps({"format": FORMAT, **asdict(figures)}, ensure_ascii=False, allow_nan=False, indent=1)
        + "\n"
    )


def card_tables(figures: SetFigures) -> list[CardTable]:
    """The tables of the card."""
    tables: list[CardTable | None] = [fates_table(figures)]
    if figures.sets:
        tables += [axes_table(figures.sets[0]), wording_table(figures.sets)]
    return [table for table in (*tables, evaluation_table(figures.evaluation)) if table is not None]


def readme(made: MadeSet, figures: SetFigures) -> str:
    """The dataset card of the hub: front matter, tables, and how the set was made."""
    from huggingface_hub import DatasetCardData

    head = DatasetCardData(
        pretty_name=made.name,
        task_categories=["text-generation"],
        size_categories=[next((name for most, name in _SIZES if figures.accepted < most), "n>1M")],
        tags=["dynalign", "prompts", "synthetic"],
        configs=[
            {"config_name": "default", "data_files": "prompts.parquet"},
            {"config_name": "items", "data_files": "items.parquet"},
        ],
    )
    lines = [
        "---",
        head.to_yaml().strip(),
        "---",
        "",
        f"# {made.name}",
        "",
        "Task prompts that a language model wrote, made by `dynalign prompts make`. `prompts.parquet` holds "
        "the set, the column `split` says which prompts are held out, and `items.parquet` holds every item "
        "that was asked for, with its texts and the reason of its fate. All figures below can be computed "
        "from these two files; they are in `card.json` too, and `page.html` shows them.",
        "",
        *(line for table in card_tables(figures) for line in as_markdown(table)),
        *_made_by(made.state),
        "## Limits",
        "",
        "The texts are a model's, and nobody has read all of them. Near-duplicates are found by their words: "
        "paraphrases are not. The licence is for the maker of the set to choose.",
        "",
    ]
    return "\n".join(lines)


def _made_by(state: Mapping[str, object]) -> list[str]:
    """The settings that identify the set, as they are in set.json."""
    identity = state.get("identity")
    if not isinstance(identity, Mapping):
        return []
    said = json.dumps(identity, ensure_ascii=False, indent=2)
    return ["## How it was made", "", *(f"    {line}" for line in said.splitlines()), ""]


def set_page(made: MadeSet, figures: SetFigures) -> str:
    """The page of a made set."""
    given = made.given()
    sections = [
        PageSection("Items", (*tabled(fates_table(figures)), *rejection_figures(made.items, "domain"))),
    ]
    if figures.sets:
        own = figures.sets[0]
        sections += [
            PageSection("Coverage", (*tabled(axes_table(own)), *coverage_figures(given))),
            PageSection("Wording", (*tabled(wording_table(figures.sets)), *wording_figures(given, own))),
            PageSection(
                "Repeats",
                tabled(
                    neighbour_table(given, own),
                    repeats_table(own, given.texts),
                    leaks_table(own),
                    evaluation_table(figures.evaluation),
                ),
            ),
        ]
    facts = [
        ("asked", f"{figures.asked:,}"),
        ("accepted", f"{figures.accepted:,}"),
        ("rejected", f"{sum(figures.rejected.values()):,}"),
        ("failed", f"{sum(figures.failed.values()):,}"),
        ("goals", f"{figures.goals:,}"),
    ]
    texts = [item for item in made.items if item["prompt"]]
    shown = [_sample(texts[number], made.axes) for number in evenly_spaced(len(texts), MOST_SAMPLES)]
    return page(made.name, facts, sections, shown, len(texts))


def _sample(item: Record, axes: Sequence[str]) -> BrowsedText:
    fields = {name: str(item[name]) for name in ("fate", "reason", "split", *axes)}
    more = " · ".join(filter(None, (str(item["goal"]), str(item["detail"]))))
    return BrowsedText(f"place {item['place']}, attempt {item['attempt']}", str(item["prompt"]), fields, more)
