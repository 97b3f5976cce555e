"""Alarms in `events.jsonl`: a line when one begins to fire, and a line when it is silent again."""

import logging
from collections.abc import Sequence
from pathlib import Path

from dynalign.configs.errors import one_line
from dynalign.run_folder.events import EventLog, read_events
from dynalign.run_folder.run_status import AlarmStatus

logger = logging.getLogger(__name__)


class AlarmEvents:
    """Writes each change once, also over several drivers of one run: what was told is in the file."""

    def __init__(self, folder: Path, log: EventLog) -> None:
        self._log = log
        self._firing: set[str] = set()
        try:
            told = [event for event in read_events(folder) if event.kind == "alarm"]
        except (OSError, ValueError, TypeError) as error:  # the file only informs
            logger.warning("the events of earlier drivers cannot be read: %s", one_line(error))
            told = []
        for event in told:
            (self._firing.add if event.what == "fired" else self._firing.discard)(event.actor)

    def tell(self, firing: Sequence[AlarmStatus]) -> None:
        """firing: the alarms that fire after the newest step."""
        for alarm in firing:
            if alarm.name not in self._firing:
                self._log.write("alarm", alarm.name, "fired", alarm.action, alarm.words)
        now = {alarm.name for alarm in firing}
        for name in sorted(self._firing - now):
            self._log.write("alarm", name, "cleared", "", "its statistic is below half of its threshold")
        self._firing = now
