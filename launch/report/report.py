"""`report.html`: a run, or several to compare, as one page that a browser opens without any network.

The page loads nothing from outside, and its Content-Security-Policy forbids it. Text that a model wrote is
data: it is escaped in the page, and inserted as text by the sample browser.
"""

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dynalign.configs.errors import RecordError
from dynalign.launch.report.alarm_lines import alarm_lines, in_short, ranges
from dynalign.launch.report.charts import MOST_MARKERS
from dynalign.launch.report.data import (
    LONGEST_SAMPLED_TEXT,
    SAMPLED_GROUPS_PER_STEP,
    Curve,
    Run,
    gap_curve,
    heldout_change,
    heldout_curve,
    load_runs,
    training_curve,
)
from dynalign.launch.report.figures import ABSENT, figure, hundredths, with_interval
from dynalign.launch.report.scales import binned
from dynalign.launch.report.sections import comparison_charts, sections
from dynalign.launch.report.time_split import learner_split
from dynalign.launch.summary import Summary, conservation_line, duration, read_summary
from dynalign.run_folder import durable, layout
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import Row

HERE = Path(__file__).parent
LEDGER_TERMS = (
    "issued",
    "pending",
    "leased",
    "scored",
    "trained",
    "withheld",
    "requeued",
    "late",
    "rolled_back",
)
"""The terms of the conservation law, and the counters beside it, as metrics.jsonl names them."""
LEDGER_TABLE_ROWS = 12
"""Steps in the table of the conservation law."""
SHOWN_HELDOUT_PROMPTS = 32
"""Held-out prompts whose answers are on the page."""


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A figure that an operator looks for first: `KeyFigure("Groups trained", "28 of 32", "…")`."""

    label: str
    """What it is."""
    value: str
    """The figure."""
    note: str
    """Steps, interval or counts that qualify it."""


@dataclass(frozen=True, slots=True)
class HeldoutPair:
    """Two answers to one held-out prompt, without the system prompt."""

    first: HeldoutItem
    """The answer at the first evaluation."""
    last: HeldoutItem
    """The answer at the last one."""


def write_report(run_folders: Sequence[Path]) -> Path:
    """Writes `report.html` into the first run folder and returns its path; reads the folders' files alone.

    The first run is shown in full; several runs are also overlaid in a comparison. The page names what is
    missing or damaged. Raises UserError that names all folders that are not run folders.
    """
    runs = load_runs(run_folders)
    path = run_folders[0] / layout.REPORT
    durable.write(path, render(runs))
    return path


def render(runs: Sequence[Run]) -> str:
    """The HTML page: the first run in full, and a comparison of several."""
    run = runs[0]
    summary = _summary(run)
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {"figure": _optional_figure, "score": _optional_score, "sha256": _sha256}
    labels = _labels(runs)
    alarms = alarm_lines(run)
    return environment.get_template("report.html.j2").render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        run=run,
        state=summary.state if summary else "no summary yet",
        cause=summary.cause if summary else None,
        facts=_facts(run, summary),
        key_figures=_key_figures(run, summary),
        sections=sections(run),
        alarms=alarms,
        alarms_in_short=in_short(alarms),
        comparison=comparison_charts(list(zip(labels, runs, strict=True))) if len(runs) > 1 else [],
        compared=[_compared(label, each) for label, each in zip(labels, runs, strict=True)],
        smoothed=MOST_MARKERS if max(len(each.rows) for each in runs) > MOST_MARKERS else 0,
        ledger_terms=LEDGER_TERMS,
        ledger_rows=_ledger_rows(run),
        conservation=conservation_line(summary) if summary else None,
        heldout_pairs=_heldout_pairs(run)[:SHOWN_HELDOUT_PROMPTS],
        # JSON knows no NaN: one would stop the browser's parser.
        samples=json.loads(json.dumps(run.samples), parse_constant=lambda _: None),
        sample_note=_sample_note(run),
        written=time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )


def _sha256(text: str) -> str:
    """A script's hash in the form of a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _optional_figure(value: float | None) -> str:
    return ABSENT if value is None else figure(value)


def _optional_score(value: float | None) -> str:
    return ABSENT if value is None else hundredths(value)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names, or their folders where two runs have the same name."""
    names = [run.name for run in runs]
    return [str(run.folder) if names.count(run.name) > 1 else run.name for run in runs]


def _summary(run: Run) -> Summary | None:
    try:
        return read_summary(run.folder)
    except RecordError as error:
        run.problems.append(str(error))
        return None


def _facts(run: Run, summary: Summary | None) -> list[tuple[str, str]]:
    """What was run, for the head of the page."""
    step = run.last_row["step"] if run.last_row else 0
    planned = summary.steps if summary else run.setting("steps")
    wall_s = summary.wall_s if summary else sum(value for _, value in run.column("step_s"))
    judge = [run.setting(f"judge.{name}") for name in ("kind", "scorer", "rubric")]
    group = run.setting("rollout.group_size")
    prompts = run.setting("rollout.prompts_per_step")
    facts = [
        ("model", run.setting("model")),
        ("judge", ", ".join(str(part) for part in judge if part)),
        ("steps", f"{step:,} of {planned:,}" if planned else f"{step:,}"),
        ("batch", f"{prompts} prompts × {group} candidates" if group and prompts else None),
        ("time", duration(wall_s) if wall_s else None),
        ("checkpoint", summary.checkpoint if summary else None),
        ("folder", str(run.folder)),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _key_figures(run: Run, summary: Summary | None) -> list[KeyFigure]:
    plain = heldout_curve(run, prompted=False)
    prompted = heldout_curve(run, prompted=True)
    found = [
        _change("Held-out reward, unprompted", plain, _paired_note(run, prompted=False)),
        _change("Held-out reward, prompted", prompted, _paired_note(run, prompted=True)),
        _change("Training reward", training_curve(run)),
        _change("Internalization gap, nats/token", gap_curve(run)),
        _conserved(run),
        _oldest(run),
        _mean_rate(run, "generate_tokens_per_s", "Generated, tokens/s"),
        _learner_busy(run),
    ]
    return [each for each in found if each]


def _change(label: str, curve: Curve, note: str = "") -> KeyFigure | None:
    """First → last value. note: replaces the interval of the last value."""
    if not curve:
        return None
    first_step, first = curve[0]
    last_step, last = curve[-1]
    when = f"step {first_step}" if first_step else "before training"
    if first_step == last_step:
        return KeyFigure(label, hundredths(last.mean), f"{when}; {with_interval(last)}")
    note = note or f"last {with_interval(last)}"
    value = f"{hundredths(first.mean)} → {hundredths(last.mean)}"
    return KeyFigure(label, value, f"{when} → step {last_step}; {note}")


def _paired_note(run: Run, prompted: bool) -> str:
    change = heldout_change(run, prompted)
    if change is None or change.low is None or change.high is None:
        return ""
    low = hundredths(change.low, "+")
    high = hundredths(change.high, "+")
    return f"change {hundredths(change.mean, '+')} ({low} to {high}, paired over {change.n} prompts)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _conserved(run: Run) -> KeyFigure | None:
    row = run.last_row
    if row is None or row["issued"] is None:
        return None
    withheld = f"{row['withheld']:,} withheld, " if row["withheld"] is not None else ""
    moving = sum(row[name] or 0 for name in ("pending", "leased", "scored"))
    trained = f"{row['trained']:,} of {row['issued']:,}"
    return KeyFigure("Groups trained", trained, f"{withheld}{moving:,} on their way at step {row['step']}")


def _oldest(run: Run) -> KeyFigure | None:
    ages = [value for _, value in run.column("staleness_max")]
    if not ages:
        return None
    bound = run.setting("algorithm.max_staleness")
    return KeyFigure("Oldest trained token, versions", figure(max(ages)), f"bound {bound}")


def _mean_rate(run: Run, name: str, label: str) -> KeyFigure | None:
    rates = [value for _, value in run.column(name)]
    if not rates:
        return None
    return KeyFigure(label, figure(sum(rates) / len(rates)), "mean over steps, all workers")


def _learner_busy(run: Run) -> KeyFigure | None:
    split = learner_split(run)
    whole_s = sum(sum(parts) for parts in split.values())
    if not whole_s:
        return None
    learn_s = sum(parts[0] for parts in split.values())
    waited_s = sum(parts[2] + parts[3] for parts in split.values())
    note = f"waiting for batches {_percent(waited_s / whole_s)}"
    return KeyFigure("Learner busy learning", _percent(learn_s / whole_s), note)


def _compared(label: str, run: Run) -> dict[str, Any]:
    """One row of the comparison's table."""
    last = run.last_row
    curves = [
        heldout_curve(run, prompted=False),
        heldout_curve(run, prompted=True),
        training_curve(run),
        gap_curve(run),
    ]
    cells = [with_interval(curve[-1][1]) if curve else ABSENT for curve in curves]
    return {"label": label, "step": last["step"] if last else 0, "cells": cells}


def _ledger_rows(run: Run) -> list[Row]:
    """At most LEDGER_TABLE_ROWS rows, spread over the run, with the last one."""
    rows = [row for row in run.rows if row["issued"] is not None]
    return [column[-1] for column in binned(rows, LEDGER_TABLE_ROWS)]


def _heldout_pairs(run: Run) -> list[HeldoutPair]:
    """Prompts answered at the first and at the last evaluation, the largest changes of score first."""
    plain = [item for item in run.heldout if not item.prompted]
    if not plain:
        return []
    first = plain[0].step
    last = plain[-1].step
    if first == last:
        return []
    before = {item.prompt_id: item for item in plain if item.step == first}
    after = {item.prompt_id: item for item in plain if item.step == last}
    pairs = [HeldoutPair(item, after[prompt]) for prompt, item in before.items() if prompt in after]
    return sorted(pairs, key=_moved, reverse=True)


def _moved(pair: HeldoutPair) -> float:
    if pair.first.score is None or pair.last.score is None:
        return -1.0
    return abs(pair.last.score - pair.first.score)


def _sample_note(run: Run) -> str:
    """Says which part of the records is on the page."""
    if not run.samples:
        return ""
    steps = [sample["step"] for sample in run.samples]
    total = len(run.experience)
    which = f"Steps {ranges(steps)} of {total} steps with records"
    if len(steps) == total:
        which = f"All {total} steps with records"
    return (
        f"{which}; at most {SAMPLED_GROUPS_PER_STEP} groups of a step, fewer where texts are long, "
        f"texts cut at {LONGEST_SAMPLED_TEXT:,} characters. "
        "The whole record is in the run folder's experience/."
    )
