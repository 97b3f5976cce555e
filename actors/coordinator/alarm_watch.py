"""The alarms of a run as its coordinator holds them: a bounded history, and what follows from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.evaluation.alarms.alarms import AlarmReading, alarm_columns, readings
from dynalign.evaluation.alarms.history import bounded
from dynalign.run_folder.run_status import AlarmStatus


class AlarmWatch:
    """It has no memory but the rows, so that a resumed run goes on as one that was never interrupted.

    rows: those of `metrics.jsonl`, by step. Until the first `look`, it says what the newest of them say.
    """

    def __init__(self, settings: AlarmsSettings, rows: Sequence[Mapping[str, Any]]) -> None:
        self._settings = settings
        self._rows = bounded(rows)
        self._readings: tuple[AlarmReading, ...] = readings(self._rows, settings) if self._rows else ()

    def look(self, row: Mapping[str, Any]) -> dict[str, int | None]:
        """Takes a step's row in, in the place of rows that a return to a checkpoint has undone, and returns
        the alarms' columns of it."""
        self._rows = bounded([*(old for old in self._rows if old["step"] < row["step"]), row])
        self._readings = readings(self._rows, self._settings)
        return alarm_columns(self._readings)

    @property
    def firing(self) -> tuple[AlarmStatus, ...]:
        """The alarms that fire after the newest step."""
        return tuple(
            AlarmStatus(each.name, each.onset_step, each.fired_step, each.action, each.words)
            for each in self._readings
            if each.onset_step is not None and each.fired_step is not None
        )

    def asked(self) -> AlarmStatus | None:
        """The alarm that has just begun to fire and asks for a pause or a stop; `stop` before `pause`. None
        without one. An alarm that goes on firing asks once: a run that a person resumes goes on."""
        begun = {each.name for each in self._readings if each.begins}
        asking = [each for each in self.firing if each.name in begun and each.action != "warn"]
        return next((each for each in asking if each.action == "stop"), asking[0] if asking else None)
