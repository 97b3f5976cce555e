"""The alarms of a run as lines of a table: what each one says at the end, and the steps at which it fired."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.evaluation.alarms.alarms import AlarmReading, readings
from dynalign.evaluation.alarms.history import bounded
from dynalign.launch.report.data import Run
from dynalign.launch.report.figures import ABSENT

NOT_MEASURED = "not measured"
"""The state of an alarm whose signal the run did not have, or not for long enough."""


@dataclass(frozen=True, slots=True)
class AlarmLine:
    """One alarm. Example: `AlarmLine("injection", True, "fires since step 85", "7.2 of 6", "share of …")`."""

    name: str
    """The alarm's name."""
    fires: bool
    """Whether it fires at the end."""
    state: str
    """Whether it fires, fired, is silent, or was not measured."""
    statistic: str
    """Standard errors, of the threshold."""
    words: str
    """What was seen and what to do; the setting's own words where it does not fire."""


def alarm_lines(run: Run) -> list[AlarmLine]:
    """A line for each alarm, those that fire first; [] without a row.

    Thresholds are those of config.yaml, and the defaults where it holds none that can be read.
    """
    if not run.rows:
        return []
    lines = [_line(run, reading) for reading in readings(bounded(run.rows), _settings(run))]
    return sorted(lines, key=lambda line: not line.fires)


def _settings(run: Run) -> AlarmsSettings:
    try:
        return AlarmsSettings.model_validate(run.setting("alarms") or {})
    except ValidationError:
        return AlarmsSettings()


def _line(run: Run, reading: AlarmReading) -> AlarmLine:
    fired = [int(row["step"]) for row in run.rows if row.get(f"alarm_{reading.name}")]
    state = "silent"
    if reading.fires:
        state = f"fires since step {reading.fired_step}"
    elif fired:
        state = f"silent; fired in steps {ranges(fired)}"
    elif reading.statistic is None:
        state = NOT_MEASURED
    statistic = ABSENT if reading.statistic is None else f"{reading.statistic:.1f}"
    about = AlarmsSettings.model_fields[reading.name].description or ""
    return AlarmLine(
        reading.name,
        reading.fires,
        state,
        f"{statistic} of {reading.threshold:g}",
        reading.words if reading.fires else " ".join(about.split()),
    )


def in_short(lines: Sequence[AlarmLine]) -> str:
    """How many fire, and how many have not been measured: `1 alarm fires, 7 of 10 are not measured`."""
    firing = sum(line.fires for line in lines)
    unmeasured = sum(line.state == NOT_MEASURED for line in lines)
    fires = f"{firing} alarms fire" if firing > 1 else f"{'1' if firing else 'No'} alarm fires"
    return f"{fires}, {unmeasured} of {len(lines)} are not measured"


def ranges(steps: Sequence[int]) -> str:
    """Ascending numbers as ranges: `1–3, 91–100`."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
