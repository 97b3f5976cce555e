"""docs/gpu.md is the one page that says what no GPU has shown, and which stage of the check would show it."""

import re

from dynalign.benchmarks.gpu_check.stages import STAGES
from tests.worlds.product import ROOT, project_files, refuse

PAGE = "docs/gpu.md"
UNPROVED = re.compile(
    r"not yet run|(has|have|was|were) (not|never) run on|not on (a )?GPUs? yet"
    r"|not (been )?(run|measured|trained|tested|proved) on (a )?GPUs?|On a GPU none of",
    re.IGNORECASE,
)


def section(heading: str) -> str:
    return (ROOT / PAGE).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_no_other_page_says_what_a_gpu_has_not_shown() -> None:
    refuse(
        f"{page} says `{found.group()}`: give {PAGE} a line with the stage that would show it, and link there"
        for page in project_files()
        if page.endswith(".md") and page != PAGE
        for found in UNPROVED.finditer(" ".join((ROOT / page).read_text().split()))
    )


def test_such_sentences_are_seen_and_others_pass() -> None:
    said = (
        "`nccl` has not run on GPUs",
        "and not on GPUs yet",
        "`nccl`, not yet run",
        "not measured on a GPU",
    )
    assert all(map(UNPROVED.search, said))
    assert not UNPROVED.search("A model's own Python code is never run. This GPU was not found.")


def test_every_stage_is_in_one_of_the_two_tables_and_every_claim_names_what_would_prove_it() -> None:
    claims = rows(section("What no GPU has shown"))
    named = {name for *_, proof in claims for name in re.findall(r"`([\w-]+)`", proof)}
    measured = section("Measured")
    stages = {stage.name for stage in STAGES}
    refuse(
        f"the stage {name} is in no table of {PAGE}: write down what it proves"
        for name in stages
        if name not in named and f"`{name}`" not in measured
    )
    refuse(f"{PAGE} names the stage {name}, which is not there" for name in named - stages)
    refuse(
        f"{PAGE}: `{claim[0]}` has neither a stage, nor a command, nor `no stage`"
        for claim in claims
        if len(claim) != 3 or not ("`" in claim[2] or claim[2].startswith("no stage"))
    )


def test_a_measured_line_has_its_figures_card_day_and_commit() -> None:
    refuse(
        f"{PAGE}: `{cells[0]}` is no measured line: give its figures, the card, the day and the commit"
        for cells in rows(section("Measured"))
        if len(cells) != 5 or not all(cells) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", cells[3])
    )
