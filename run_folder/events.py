"""`events.jsonl`: which actor died, why, what was done, and how long it took; and which alarm fired. One JSON
object per line, appended."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dynalign.run_folder import layout

Kind = Literal["worker", "ledger", "learner", "coordinator", "engine", "gateway", "pool", "alarm"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`.

    Example: `Event("worker", "worker-3", "recovered", "crash", "serves again", 41.5, 2, 1767225600.0)`.
    """

    kind: Kind
    """The kind of actor. `engine`: one of `judge.pool`. `pool`: all workers together. `alarm`: one of the
    section `alarms`."""
    actor: str
    """Its name."""
    what: str
    """`died`, `recovered`, `drains`, `scaled`; of an alarm `fired` or `cleared`; `judge fails` for the first
    failure of `judge.function`, or group that was withheld because the judge could not be reached."""
    cause: str
    """One word, which is also the label of the Prometheus metric; of an alarm its action."""
    detail: str
    """A sentence for people."""
    lost_s: float | None
    """Seconds from the death to the recovery; None for other events."""
    lineage: int
    """The lineage in which it happened."""
    time_s: float
    """When it happened, in Unix seconds."""


class EventLog:
    """Writes a run's events: its driver does, and its ledger where it takes prompts.

    run_folder: None for a command without one, whose events are logged alone. lineage: returns the present
    one."""

    def __init__(self, run_folder: Path | None, lineage: Callable[[], int] = lambda: 0) -> None:
        self._file = None if run_folder is None else run_folder / layout.EVENTS
        self._lineage = lineage

    def write(
        self, kind: Kind, actor: str, what: str, cause: str, detail: str, lost_s: float | None = None
    ) -> None:
        """Logs an event and appends it to the file. An error of the disk costs the line, not the run."""
        event = Event(kind, actor, what, cause, detail, lost_s, self._lineage(), time.time())
        logger.warning("%s %s: %s (%s) %s", kind, actor, what, cause, detail)
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event), ensure_ascii=False) + "\n")
        except OSError as error:
            logger.error("%s cannot be written: %s", self._file, error)


def read_events(run_folder: Path) -> list[Event]:
    """All complete lines; [] without the file."""
    file = run_folder / layout.EVENTS
    lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
    return [Event(**json.loads(line)) for line in lines]
