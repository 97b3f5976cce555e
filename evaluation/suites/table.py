"""A suite's figures as text: the lines before it is asked, and the table afterwards, in Markdown."""

from collections.abc import Sequence

from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.evaluation.statistics.noninferiority_plan import WANTED_POWER, Plan, repeats_needed
from dynalign.evaluation.suites.figures import ComparedTask, SuiteFigures
from dynalign.evaluation.suites.tasks import SuiteTask


def plan_line(task: SuiteTask, items: int, found: Plan) -> str:
    """What a task's comparison can show: `IFEval, strict: 541 items: 83 % power …`."""
    asked = f"{items} items" + (f" × {task.repeats} answers" if task.repeats > 1 else "")
    shown = f"to show that less than {_points(task.margin)} points were lost, if nothing was"
    power = f"{_percent(found.power)} power {shown}"
    holm = f"{_percent(found.power_holm)} at the suite's strictest level"
    line = f"{task.title}: {asked}: {power} ({holm})"
    if found.power >= WANTED_POWER:
        return line
    needed = repeats_needed(task.variances, items, task.margin) if task.kind == "text" else None
    more = "more items" if needed is None else f"{needed} answers each"
    return f"{line}; {_percent(WANTED_POWER)} need {more}, or a larger margin"


HEADER_ALONE = ("task", "score", "notes")
HEADER = (
    "task",
    "{model}",
    "{against}",
    "difference, points",
    "lost at most",
    "margin",
    "p (Holm)",
    "verdict",
    "notes",
)


def table_header(figures: SuiteFigures) -> tuple[str, ...]:
    """The table's columns."""
    if figures.against is None:
        return HEADER_ALONE
    return tuple(each.format(model=figures.model, against=figures.against) for each in HEADER)


def table_rows(figures: SuiteFigures) -> list[tuple[str, ...]]:
    """The table's rows, as `table_header` names them. Scores are in percent, differences in points."""
    return [_row(task, figures.against is not None) for task in figures.tasks]


def markdown(figures: SuiteFigures) -> str:
    """The whole table, with what differs from the harness below it."""
    header = table_header(figures)
    lines = [_line(header), _line(["---"] * len(header)), *(_line(row) for row in table_rows(figures))]
    lines += ["", *table_notes(figures)]
    return "\n".join(lines) + "\n"


def table_notes(figures: SuiteFigures) -> list[str]:
    """Sentences below the table: how tasks were changed, and what the columns say."""
    changes: dict[str, list[str]] = {}
    for task in figures.tasks:
        if task.changed:
            changes.setdefault(task.changed, []).append(task.title)
    notes = [f"{', '.join(titles)}: {changed}." for changed, titles in changes.items()]
    if any(not task.higher_is_better for task in figures.tasks):
        notes.append("↓: less of it is better.")
    if figures.against is not None:
        notes.append(
            "Lost at most: the one-sided 95 % bound of the loss. Non-inferior: it is below the margin, with "
            "Holm's correction over the suite."
        )
    return notes


def _row(task: ComparedTask, compares: bool) -> tuple[str, ...]:
    title = task.title + ("" if task.higher_is_better else " ↓")
    own = _score(task.of_model.score)
    if not compares or task.of_other is None:
        return title, own, _notes(task)
    other = _score(task.of_other.score)
    if task.loss is None:
        return title, own, other, "–", "–", _points(task.planned.margin), "–", "inconclusive", _notes(task)
    found = task.loss.difference
    low = found.low if task.higher_is_better else _negative(found.high)
    high = found.high if task.higher_is_better else _negative(found.low)
    mean = found.mean if task.higher_is_better else -found.mean
    return (
        title,
        own,
        other,
        f"{_signed(mean)} ({_signed(low)} to {_signed(high)})",
        _points(max(0.0, -task.loss.bound)),
        _points(task.loss.margin),
        f"{task.loss.p_holm:.3f}",
        task.loss.verdict,
        _notes(task),
    )


def _notes(task: ComparedTask) -> str:
    models = [each for each in (task.of_model, task.of_other) if each is not None]
    counts = {
        "cut off": sum(each.cut for each in models),
        "unreadable": sum(each.unread for each in models),
        "items refused": sum(each.refused for each in models),
    }
    repeats = f" × {task.of_model.repeats}" if task.of_model.repeats > 1 else ""
    said = [f"{task.of_model.items}{repeats} items", *(f"{n} {what}" for what, n in counts.items() if n)]
    said += ["the other model scores too little to lose the margin"] if task.at_floor else []
    return ", ".join(said)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _score(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:.1f}"
    return f"{100 * estimate.mean:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}"


def _negative(share: float | None) -> float | None:
    return None if share is None else -share
