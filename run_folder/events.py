"""`events.jsonl`: what died, why, what was done about it, and how long it took. One JSON object per line, appended."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dynalign.run_folder import layout

Kind = Literal["worker", "ledger", "learner", "coordinator", "pool"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """kind, actor: what it is about. what: `died`, `recovered`, `drains`, `scaled`. cause: one word, the label of the metric.
    detail: a sentence. lost_s: seconds from the death to the recovery, None for other events. time_s: Unix seconds."""

    kind: Kind
    actor: str
    what: str
    cause: str
    detail: str
    lost_s: float | None
    lineage: int
    time_s: float


class EventLog:
    """The one writer of a run's events. lineage: tells the present one."""

    def __init__(self, run_folder: Path, lineage: Callable[[], int]) -> None:
        self._file, self._lineage = run_folder / layout.EVENTS, lineage

    def write(
        self, kind: Kind, actor: str, what: str, cause: str, detail: str, lost_s: float | None = None
    ) -> None:
        """A log that cannot be written costs the line, not the run: what keeps the run alive must not need the disk."""
        event = Event(kind, actor, what, cause, detail, lost_s, self._lineage(), time.time())
        logger.warning("%s %s: %s (%s) %s", kind, actor, what, cause, detail)
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event), ensure_ascii=False) + "\n")
        except OSError as error:
            logger.error("%s cannot be written: %s", self._file, error)


def read_events(run_folder: Path) -> list[Event]:
    """All whole lines; [] without the file."""
    file = run_folder / layout.EVENTS
    lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
    return [Event(**json.loads(line)) for line in lines]
