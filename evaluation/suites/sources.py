"""A task's items: ours, from a file, or from the hub. A missing data set is named with the way to it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.evaluation.suites.items import OWN, Row
from dynalign.evaluation.suites.tasks import OWN_ITEMS, SuiteTask

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
"""Of the files that are read."""
REACHED = "let the hub be reached: HF_ENDPOINT names it, HF_TOKEN opens a set whose licence was accepted"
"""What else helps where a set cannot be fetched."""


def rows_of(task: SuiteTask, data: Path | None) -> list[Row]:
    """The items of a task, in the columns of its data set.

    data: a folder with a file TASK.jsonl (or .json, .csv, .parquet) for each data set; a task without one is
    taken from the hub. Raises UserError if the items are not there, or are not the task's."""
    if task.source.path == OWN_ITEMS:
        return OWN[task.name]()
    file = None if data is None else file_in(data, task.name)
    rows = _from_hub(task, data) if file is None else _from_file(task, file)
    if not rows:
        raise UserError([Mistake(str(file or task.source.path), None, "has no items", _way(task))])
    return rows


def file_in(folder: Path, name: str) -> Path | None:
    """The file with a task's items; None where the folder has none. Raises UserError without the folder."""
    if not folder.is_dir():
        rule = "is no folder"
        raise UserError([Mistake("--data", str(folder), rule, "name a folder with one file per task")])
    files = (folder / f"{name}{ending}" for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _way(task: SuiteTask) -> str:
    file = f"{task.name}.jsonl (or .json, .csv, .parquet)"
    return f"put its split {task.source.split} into the --data folder as {file}"


def _from_file(task: SuiteTask, file: Path) -> list[Row]:
    try:
        rows = list(_read(file))
    except (ValueError, OSError, csv.Error) as error:
        rule = f"cannot be read ({str(error).splitlines()[0][:120]})"
        raise UserError([Mistake(str(file), None, rule, _way(task))]) from None
    if not all(isinstance(row, dict) for row in rows):
        raise UserError([Mistake(str(file), None, "has lines that are no objects", _way(task))])
    return rows


def _read(file: Path) -> Iterator[Row]:
    """Raises ValueError, OSError or csv.Error."""
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8") as lines:
            yield from csv.DictReader(lines)
    elif file.suffix == ".parquet":
        import pyarrow.parquet as parquet

        yield from parquet.read_table(file).to_pylist()
    elif file.suffix == ".jsonl":
        yield from (json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip())
    else:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, list):
            raise ValueError("it is no list of objects")
        yield from found


def _from_hub(task: SuiteTask, data: Path | None) -> list[Row]:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    source = task.source
    try:
        found = datasets.load_dataset(source.path, source.subset, split=source.split)
    except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        rule = f"is not in the hub's cache and cannot be fetched ({_first_line(error)})"
        if data is not None:
            rule = f"has no file in {data}, {rule}"
        place = f"the data set {source.path} of {task.name}"
        remedy = f"{_way(task)}, or {REACHED}"
        raise UserError([Mistake(place, None, rule, remedy)]) from None
    return [dict(row) for row in found]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
