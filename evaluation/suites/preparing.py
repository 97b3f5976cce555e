"""What a suite asks: its tasks with a user's changes, each with its items; all mistakes together."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.evaluation.suites.harness import SEED, HarnessTask
from dynalign.evaluation.suites.items import Row
from dynalign.evaluation.suites.sources import rows_of
from dynalign.evaluation.suites.tasks import SUITES, TASKS, SuiteTask

LIMIT = 1000
"""Items of a task that are asked at most: the larger sets (BBQ has 58,492) say no more in practice."""
MOST_REPEATS = 256
MOST_TOKENS = 1 << 20


def suite_tasks(suite: str, only: Sequence[str] = (), changes: Sequence[str] = ()) -> tuple[SuiteTask, ...]:
    """The tasks of a suite.

    only: names of tasks, of the suite or not; none: the whole suite. changes: `TASK.repeats=8`,
    `TASK.margin=5` (points), `TASK.max_tokens=4096`. Raises UserError with every mistake."""
    mistakes = []
    if suite not in SUITES:
        mistakes.append(Mistake("suite", suite, "is no suite", _there_are(suite, tuple(SUITES))))
    for name in only:
        if name not in TASKS:
            mistakes.append(Mistake("--task", name, "is no task", _there_are(name, tuple(TASKS))))
    if mistakes:
        raise UserError(mistakes)
    chosen = {name: TASKS[name] for name in only} or {task.name: task for task in SUITES[suite]}
    for change in changes:
        try:
            name, changed = _changed(change, chosen)
            chosen[name] = changed
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        raise UserError(mistakes)
    return tuple(chosen.values())


def prepared(tasks: Sequence[SuiteTask], data: Path | None, limit: int = LIMIT) -> tuple[HarnessTask, ...]:
    """The tasks with their items. Raises UserError with what is missing of all of them."""
    found = []
    mistakes: list[Mistake] = []
    for task in tasks:
        try:
            found.append(HarnessTask(task, drawn(rows_of(task, data), limit)))
        except UserError as error:
            mistakes += [mistake for mistake in error.mistakes if mistake not in mistakes]
    if mistakes:
        raise UserError(mistakes)
    return tuple(found)


def drawn(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` of the rows, drawn the same way every time, in their order."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[place] for place in sorted(random.Random(SEED).sample(range(len(rows)), limit))]


def _there_are(name: str, known: Sequence[str]) -> str:
    close = did_you_mean(name, known)
    return f"did you mean {close}?" if close else f"there are: {', '.join(known)}"


def _changed(change: str, chosen: dict[str, SuiteTask]) -> tuple[str, SuiteTask]:
    path, _, text = change.partition("=")
    name, _, key = path.partition(".")
    task = chosen.get(name)
    if task is None:
        remedy = f"write TASK.margin=5, with a task of: {', '.join(chosen)}"
        raise UserError([Mistake("--set", change, "names no task that is asked", remedy)])
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if key == "margin" and 0 < number <= 100:
        return name, replace(task, margin=number / 100)
    whole = int(number) if number == int(number) else 0
    if key == "repeats" and task.kind == "text" and 1 <= whole <= MOST_REPEATS:
        return name, replace(task, repeats=whole)
    if key == "max_tokens" and 1 <= whole <= MOST_TOKENS:
        return name, replace(task, max_tokens=whole)
    rule = "is no change of a task"
    if key == "repeats" and task.kind != "text":
        rule = "repeats a task whose answer is the likeliest label, the same each time"
    remedy = f"set margin (points), max_tokens, or repeats (1 to {MOST_REPEATS}) to a positive number"
    raise UserError([Mistake("--set", change, rule, remedy)])
