"""The report of `dynalign experiment paper`: its steps, what the run has learned, and the paper's table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import RecordError
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.charts import Chart, Series, line_chart
from dynalign.launch.report.data import heldout_curve, load_run
from dynalign.launch.report.evaluation_suites import suite_scores
from dynalign.launch.report.evaluation_tables import paper_rows, share
from dynalign.launch.report.experiment_page import rendered
from dynalign.launch.report.judge_tables import CardTable, cell_text, table_lines
from dynalign.launch.summary import Summary, change_line, read_summary
from dynalign.run_folder import durable, layout

FORMAT = "dynalign.paper-report/1"
QUESTION = "Does the paper's way, from prompts to evaluation, give a model that is preferred over its base?"


@dataclass(frozen=True)
class PaperStepState:
    """How far a step is: `PaperStepState("train", "dynalign train …", "finished", "")`."""

    name: str
    """The step."""
    command: str
    """Its command line."""
    state: str
    """`finished`, `failed`, `interrupted` or `not started`."""
    said: str
    """Why it failed."""


@dataclass(frozen=True)
class Preference:
    """What `evaluate pairwise` has found: `Preference(Estimate(0.54, 0.41, 0.66, 32), 1, ("…",))`."""

    rate: Estimate | None
    """The win rate of the trained model over the one that it began from; None without a readable verdict."""
    judges: int
    """Judges that gave it."""
    warnings: tuple[str, ...]
    """What is against believing it."""


def write_paper_report(
    folder: Path,
    states: Sequence[PaperStepState],
    run: Path,
    evaluation: Path,
    own_prompts: bool,
    settings: RunSettings,
) -> list[str]:
    """Writes report.html, .md and .json into the folder, from the steps' files alone; returns the sentences.

    own_prompts: whether the run trains on the prompts that were made."""
    finished = {state.name for state in states if state.state == "finished"}
    summary = read_summary(run)
    found = preference(evaluation / "evaluation.json") if "evaluate" in finished else None
    sentences = [*_sentences(states, finished, own_prompts, summary, settings), *_preferred(found)]
    tables = [_steps(states)]
    if found is not None:
        tables.append(paper_rows(found.rate, found.judges, suite_scores(evaluation)))
    facts = [("model", settings.model), ("run", str(run)), ("evaluation", str(evaluation))]
    charts = [_curve(run)] if summary is not None else []
    durable.write(
        folder / layout.REPORT, rendered("paper", QUESTION, facts, sentences, [], charts, tables, "")
    )
    lines = ["# Experiment paper", "", QUESTION, "", *(f"- {cell_text(each)}" for each in sentences)]
    for table in tables:
        lines += ["", f"## {table.title}", "", *table_lines(table), "", table.caption]
    durable.write(folder / "report.md", "\n".join(lines) + "\n")
    content = {
        "format": FORMAT,
        "finished": len(finished) == len(states),
        "conclusion": sentences,
        "steps": [vars(state) for state in states],
        "own prompts": own_prompts,
        "win rate": None if found is None or found.rate is None else _as_json(found.rate),
    }
    durable.write(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return sentences


def preference(file: Path) -> Preference:
    """The preference in an evaluation's card. Raises RecordError for a file that holds none."""
    try:
        figures: dict[str, Any] = json.loads(file.read_text("utf-8"))["figures"]
        rate = figures["win_rate"]
        estimate = None if rate is None else Estimate(**rate)
        return Preference(estimate, len(figures["judges"]), tuple(figures["warnings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: not the card of an evaluation ({error!r})") from error


def _as_json(estimate: Estimate) -> dict[str, float | int | None]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _sentences(
    states: Sequence[PaperStepState],
    finished: set[str],
    own_prompts: bool,
    summary: Summary | None,
    settings: RunSettings,
) -> list[str]:
    found = []
    if len(finished) < len(states):
        found.append(f"Preliminary: {len(finished)} of {len(states)} steps have ended.")
    found += [f"The step {each.name} failed: {each.said}" for each in states if each.state == "failed"]
    if "prompts" in finished:
        source = (
            "the prompts that were made" if own_prompts else "the shipped prompts, since too few were made"
        )
        found.append(f"The run trains on {source}.")
    if summary is not None:
        found.append(_ending(summary, settings))
        found += [
            f"{change_line(change)[:1].upper()}{change_line(change)[1:]}." for change in summary.rewards
        ]
    return found


def _ending(summary: Summary, settings: RunSettings) -> str:
    steps = f"step {summary.step} of {settings.steps}"
    if summary.state != "finished":
        return f"The run is {summary.state} at {steps}."
    if summary.step < settings.steps:
        return f"The held-out reward had stopped rising at {steps}: the run has converged."
    if settings.convergence is None:
        return f"The run ended at {steps}."
    return f"The run ended at {steps} without having converged."


def _preferred(found: Preference | None) -> list[str]:
    if found is None:
        return []
    rate = found.rate
    words = f"The trained model against the one that it began from: win rate {share(rate)}"
    if rate is None or rate.low is None or rate.high is None:
        verdict = "inconclusive, there is no interval"
    elif rate.low > 0.5:
        verdict = "it is preferred"
    elif rate.high < 0.5:
        verdict = "the other one is preferred"
    else:
        verdict = "inconclusive, the interval holds 50 %"
    return [f"{words}; {verdict}.", *(f"Warning: {warning}" for warning in found.warnings)]


def _steps(states: Sequence[PaperStepState]) -> CardTable:
    rows = tuple((each.name, each.state, each.command, each.said) for each in states)
    head = ("step", "state", "command", "why it failed")
    return CardTable("Steps", head, rows, "Each step goes on where it was, with the same command.", True)


def _curve(run: Path) -> Chart:
    read = load_run(run)
    series = [
        Series("without the system prompt", heldout_curve(read, prompted=False), 0),
        Series("with it", heldout_curve(read, prompted=True), 1),
    ]
    return line_chart(
        "Held-out reward", "points", series, "By the policy itself; 95 % intervals over prompts."
    )
