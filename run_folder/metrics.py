"""The records of a run: `metrics.jsonl` (a row per step), `heldout.jsonl` (a row per held-out answer),
`capability.jsonl` (a row per answer to the capability probe), TensorBoard.

The files are only appended to, and each line carries a format number. The rows of a newer lineage
supersede those of steps that were rolled back; the readers return the history that leads to the newest
weights.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dynalign.configs.errors import RecordError
from dynalign.run_folder import layout
from dynalign.run_folder.capability import BEFORE_TRAINING, CapabilityItem
from dynalign.run_folder.heldout import HeldoutItem, reward_by_step
from dynalign.run_folder.metric_names import METRIC_NAMES, METRICS

FORMAT = 1

logger = logging.getLogger(__name__)

Row = dict[str, Any]
"""One row of `metrics.jsonl`: every name of `METRICS`, int, float, or None where a value does not apply
(yet)."""
T = TypeVar("T")


class MetricsLog:
    """The one writer of a run's `.jsonl` records and TensorBoard events, for one lineage.

    Opening the log cuts off a line that a killed writer has left incomplete, so that the next row is on a
    line of its own.
    """

    def __init__(self, run_folder: Path, tensorboard: bool, lineage: int) -> None:
        run_folder.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
        self._lineage = lineage
        self._folder = run_folder
        for name in (layout.METRICS, layout.HELDOUT, layout.CAPABILITY):
            _cut_torn_line(run_folder / name)
        self._metrics = (run_folder / layout.METRICS).open("a", encoding="utf-8")
        self._heldout = (run_folder / layout.HELDOUT).open("a", encoding="utf-8")
        self._events = EventFileWriter(str(run_folder / layout.TENSORBOARD)) if tensorboard else None
        self._purged = False

    def write(self, row: Mapping[str, float | int | None]) -> Row:
        """Appends the row of a step, and returns it with all names.

        A missing name is null, never 0. A value that is not finite is null as well, since JSON has no NaN,
        and a warning names it. Raises ValueError for an unknown name, a missing step, or a lineage other
        than the log's.
        """
        if unknown := sorted(set(row) - set(METRIC_NAMES)):
            raise ValueError(f"unknown metrics {unknown}; the names are in run_folder/metric_names.py")
        if row.get("step") is None or row.get("lineage", self._lineage) != self._lineage:
            found = f"{row.get('step')}, {row.get('lineage')}"
            raise ValueError(f"a row needs its step and lineage {self._lineage}; got {found}")
        whole: Row = {name: row.get(name) for name in METRIC_NAMES} | {"lineage": self._lineage}
        for name, value in whole.items():
            if value is not None and not math.isfinite(value):
                logger.warning(
                    "step %s: %s is %s; metrics.jsonl keeps it as null", whole["step"], name, value
                )
                whole[name] = None
        self._metrics.write(_line(whole))
        self._metrics.flush()
        self._write_events(whole)
        return whole

    def write_heldout(self, items: Iterable[HeldoutItem]) -> None:
        """Appends held-out answers."""
        self._heldout.writelines(_line(asdict(item)) for item in items)
        self._heldout.flush()

    def write_capability(self, items: Iterable[CapabilityItem]) -> None:
        """Appends a point of the capability probe; there is no file before the first one."""
        with (self._folder / layout.CAPABILITY).open("a", encoding="utf-8") as file:
            file.writelines(_line(asdict(item)) for item in items)

    def _write_events(self, row: Row) -> None:
        if self._events is None:
            return
        now_s = time.time()
        step = row["step"]
        if not self._purged:  # from this step on, TensorBoard discards what an older lineage has written
            self._events.add_event(
                Event(wall_time=now_s, step=step, session_log=SessionLog(status=SessionLog.START))
            )
            self._purged = True
        values = [
            Summary.Value(tag=f"{metric.section}/{metric.name}", simple_value=row[metric.name])
            for metric in METRICS
            if metric.section != "run" and row[metric.name] is not None
        ]
        self._events.add_event(Event(wall_time=now_s, step=step, summary=Summary(value=values)))
        self._events.flush()

    def close(self) -> None:
        self._metrics.close()
        self._heldout.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(run_folder: Path) -> list[Row]:
    """The rows of the history that leads to the newest weights, by step; [] without the file.

    Raises RecordError for a line that is not a row, or has an unknown format.
    """
    lines = _read_lines(run_folder / layout.METRICS, ("step", "lineage"))
    rows: list[Row] = [{name: line.get(name) for name in METRIC_NAMES} for line in lines]
    starts = _starts((row["step"], row["lineage"]) for row in rows)
    newest = {row["step"]: row for row in _history(rows, starts, lambda row: (row["step"], row["lineage"]))}
    return [newest[step] for step in sorted(newest)]


def read_heldout(run_folder: Path) -> list[HeldoutItem]:
    """The held-out answers of the same history, by step, then `prompted`, then as written; [] without the
    file.

    Raises RecordError for a line that is not an answer, or has an unknown format.
    """
    names = tuple(HeldoutItem.__slots__)
    needed = tuple(name for name in names if not name.startswith("version_"))
    items = [
        HeldoutItem(**{name: line[name] for name in names if name in line})
        for line in _read_lines(run_folder / layout.HELDOUT, needed)
    ]
    rows = _read_lines(run_folder / layout.METRICS, ("step", "lineage"))
    starts = _starts(
        [(row["step"], row["lineage"]) for row in rows] + [(item.step, item.lineage) for item in items]
    )
    newest = {
        (item.step, item.prompted, item.prompt_id): item
        for item in _history(items, starts, lambda item: (item.step, item.lineage))
    }
    return sorted(newest.values(), key=lambda item: (item.step, item.prompted))


def read_capability(run_folder: Path) -> dict[int, list[CapabilityItem]]:
    """The whole points of the capability probe, of the same history, by the step with which they began; {}
    without the file. That of the initial policy counts whatever was rolled back: the policy is the same.

    Raises RecordError for a line that is not an answer, or has an unknown format.
    """
    names = tuple(CapabilityItem.__slots__)
    points: dict[tuple[int, int], dict[str, CapabilityItem]] = {}
    for line in _read_lines(run_folder / layout.CAPABILITY, names):
        item = CapabilityItem(**{name: line[name] for name in names})
        points.setdefault((item.step, item.lineage), {})[item.item] = item
    rows = _read_lines(run_folder / layout.METRICS, ("step", "lineage"))
    starts = _starts((row["step"], row["lineage"]) for row in rows)
    every = (list(point.values()) for point in points.values())
    whole = [point for point in every if len(point) == point[0].of_items]
    later = _history(whole, starts, lambda point: (point[0].closed_step, point[0].lineage))
    kept = [*(point for point in whole if point[0].step == BEFORE_TRAINING), *later]
    return {point[0].step: point for point in sorted(kept, key=lambda point: point[0].step)}


def best_rewards(run_folder: Path, keep_best: int) -> dict[int, float]:
    """Evaluated step → mean held-out reward, by which `checkpoint.keep_best` ranks; {} if keep_best is 0."""
    return reward_by_step(read_heldout(run_folder)) if keep_best else {}


def _starts(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Lineage → its first step, of (step, lineage) pairs."""
    starts: dict[int, int] = {}
    for step, lineage in pairs:
        starts[lineage] = min(step, starts.get(lineage, step))
    return starts


def _history(rows: Iterable[T], starts: Mapping[int, int], key: Callable[[T], tuple[int, int]]) -> list[T]:
    """The rows that no newer lineage has superseded. A lineage supersedes what others wrote from its first
    row on."""
    return [
        row
        for row in rows
        if all(key(row)[1] >= lineage or key(row)[0] < start for lineage, start in starts.items())
    ]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **row}, ensure_ascii=False, allow_nan=False) + "\n"


_FIRST_FILES = (layout.METRICS, layout.HELDOUT)
"""Files that are older than the format number."""


def _read_lines(path: Path, needed: tuple[str, ...]) -> list[Row]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found: list[Row] = []
    # After the last newline: nothing, or a line that is still being written.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict) or not set(needed) <= set(row):
            raise RecordError(f"{path}, line {number}: not an object with {', '.join(needed)}")
        if path.name in _FIRST_FILES:  # whose first lines have no number
            row.setdefault("format", FORMAT)
        if row.get("format") != FORMAT:
            rule = f"has format {row.get('format')!r}, this version reads {FORMAT}"
            raise RecordError(f"{path}, line {number} {rule}; use the version that wrote it")
        found.append(row)
    return found


def _cut_torn_line(path: Path) -> None:
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
