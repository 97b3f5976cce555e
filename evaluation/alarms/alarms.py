"""The alarms of a run: a table of what each one looks at, and what they all say of a history.

    rows of metrics.jsonl ─► signals (signals.py) ─► windowed CUSUM (cusum.py) ─► fires, since when, and why

Nothing here keeps a state: the same rows give the same alarms, in a run, after a resume, and in a report.
How often they fire without a cause, and how soon with one, is measured: docs/alarms.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynalign.configs.sections.alarms import AlarmAction, AlarmSettings, AlarmsSettings
from dynalign.evaluation.alarms import signals
from dynalign.evaluation.alarms.cusum import Cusum, Values, firing, windowed_cusum
from dynalign.evaluation.alarms.history import History
from dynalign.evaluation.alarms.signals import Signal

WINDOW = 20
"""Measured values that a statistic looks back on."""
CHANGE_ALLOWANCE = 1.0
"""Standard errors by which a series may leave its reference for good. The reference's own error and a slow
change with the learning stay below it."""
BOUND_ALLOWANCE = 0.5
"""The same for a bound: a healthy run is far on its good side, so that less is needed."""
LIMIT = 4.0
"""The most that one value counts for, in standard errors: no single odd step fires an alarm."""


@dataclass(frozen=True)
class Alarm:
    """One alarm. Example: `Alarm("injection", signals.injection, "read the answers", 0.5)`."""

    name: str
    """Its name in the settings, in `metrics.jsonl` (after `alarm_`) and in messages."""
    signals: Callable[[History], list[Signal]]
    """What it looks at; it fires on the worst of them."""
    remedy: str
    """What to do, as the end of a sentence."""
    allowance: float = CHANGE_ALLOWANCE
    """Standard errors that each value may deviate by without counting."""
    window: int = WINDOW
    """Measured values that it looks back on."""
    limit: float = LIMIT
    """The most that one value counts for, in standard errors."""

    @property
    def metric(self) -> str:
        """Its column in `metrics.jsonl`."""
        return f"alarm_{self.name}"


ALARMS: tuple[Alarm, ...] = (
    Alarm("reward_collapse", signals.reward_collapse,
        "read samples of the last steps in the report: if answers are broken or all alike, go back to a "
        "checkpoint before the onset and raise algorithm.kl_coef or lower learner.learning_rate"),
    Alarm("capability_loss", signals.capability_loss,
        "stop, go back to a checkpoint before the onset, and raise algorithm.kl_coef or lower "
        "learner.learning_rate", allowance=0.0, window=1, limit=np.inf),
    Alarm("prompt_overfitting", signals.prompt_overfitting,
        "the policy learns these prompts, not the value: add prompts, or keep the checkpoint with the best "
        "held-out reward (checkpoint.keep_best)", limit=6.0),
    Alarm("aspect_imbalance", signals.aspect_imbalance,
        "one aspect is paid for with another: compare samples from before and after the onset, and reword "
        "the rubric or weigh its aspects anew"),
    Alarm("value_drift", signals.value_drift,
        "the reward moves because the judge does: compare samples that both judges scored, and train on the "
        "second judge if they disagree on what is better"),
    Alarm("length_gaming", signals.length_gaming,
        "the judge pays for length, or brevity: say in the rubric that length is no merit, and go back to a "
        "checkpoint before the onset if completion_length_mean has moved with it"),
    Alarm("low_reliability", signals.low_reliability,
        "the advantages are mostly noise: use the expected scorer, more samples a verdict or another judge, "
        "and prompts whose answers differ more", BOUND_ALLOWANCE),
    Alarm("self_bias", signals.self_bias,
        "the judge prefers what the policy would say anyway: train on the second judge, or let it veto"),
    Alarm("unparsed_verdicts", signals.unparsed_verdicts,
        "look at unparsed verdicts in the report and at digit_mass_mean: the policy has unlearned to judge "
        "(go back to a checkpoint, raise algorithm.kl_coef), or judge.max_rationale_tokens cuts verdicts off",
        BOUND_ALLOWANCE),
    Alarm("injection", signals.injection,
        "read the answers of the last steps: if they address the judge instead of the task, stop, go back to "
        "a checkpoint before the onset, and change the judge's template or the judge", BOUND_ALLOWANCE),
)  # fmt: skip
"""In the order in which people are told of them. A name per field of the section `alarms`."""


@dataclass(frozen=True)
class AlarmReading:
    """What one alarm says after the newest step.

    Example: `AlarmReading("injection", 7.2, 6.0, True, True, 81, 85, "pause", "share of … 0.11 …")`.
    """

    name: str
    """The alarm's name."""
    statistic: float | None
    """Standard errors by which the run is off; None while that is not known."""
    threshold: float
    """Standard errors from which on it fires."""
    fires: bool
    """Whether it fires: from the threshold on, until the statistic is below half of it."""
    begins: bool
    """Whether it fires with the newest step and did not before it."""
    onset_step: int | None
    """The step at which the deviation began; None where it does not fire."""
    fired_step: int | None
    """The step at which it began to fire; None where it does not."""
    action: AlarmAction
    """What follows where it begins to fire."""
    words: str
    """What was seen and what to do, on one line; empty where it does not fire."""


@dataclass(frozen=True)
class _Worst:
    """The worst signal of an alarm after each row of a history."""

    statistic_T: Values
    signal_T: NDArray[np.int64]
    signals: list[Signal]
    cusums: list[Cusum]


def _worst(alarm: Alarm, history: History) -> _Worst:
    found = alarm.signals(history)
    cusums = [
        windowed_cusum(signal.deviations_T, alarm.allowance, alarm.window, alarm.limit) for signal in found
    ]
    statistics_ST = np.full((len(found), len(history)), np.nan)
    for index, signal in enumerate(found):
        known = ~np.isnan(signal.deviations_T)
        statistics_ST[index, signal.rows_T[known]] = cusums[index].statistic_T[known]
        statistics_ST[index] = _carried(statistics_ST[index])
    filled_ST = np.where(np.isnan(statistics_ST), -1.0, statistics_ST)
    signal_T = filled_ST.argmax(axis=0)
    statistic_T = filled_ST.max(axis=0)
    return _Worst(np.where(statistic_T < 0, np.nan, statistic_T), signal_T, found, cusums)


def _carried(values_T: Values) -> Values:
    """Each NaN replaced by the value before it."""
    newest_T = np.maximum.accumulate(np.where(np.isnan(values_T), -1, np.arange(len(values_T))))
    carried: Values = np.where(newest_T < 0, np.nan, values_T[newest_T])
    return carried


def statistics(alarm: Alarm, history: History) -> Values:
    """The alarm's statistic after each row, in standard errors; NaN while it is not known."""
    return _worst(alarm, history).statistic_T


def readings(rows: Sequence[Mapping[str, Any]], settings: AlarmsSettings) -> tuple[AlarmReading, ...]:
    """What every alarm says after the newest row.

    rows: those of `metrics.jsonl` by step, or what `bounded` keeps of them; at least one.
    """
    history = History(rows)
    return tuple(_reading(alarm, history, settings_of(alarm, settings)) for alarm in ALARMS)


def settings_of(alarm: Alarm, settings: AlarmsSettings) -> AlarmSettings:
    """The alarm's own settings."""
    own: AlarmSettings = vars(settings)[alarm.name]
    return own


def _reading(alarm: Alarm, history: History, settings: AlarmSettings) -> AlarmReading:
    worst = _worst(alarm, history)
    fires_T = firing(worst.statistic_T, settings.threshold)
    statistic = None if np.isnan(worst.statistic_T[-1]) else float(worst.statistic_T[-1])
    if not fires_T[-1]:
        return AlarmReading(
            alarm.name, statistic, settings.threshold, False, False, None, None, settings.action, ""
        )
    quiet = np.flatnonzero(~fires_T)
    fired = int(quiet[-1]) + 1 if len(quiet) else 0
    chosen = int(worst.signal_T[fired])
    signal = worst.signals[chosen]
    index = int(np.searchsorted(signal.rows_T, fired, side="right")) - 1
    start = int(worst.cusums[chosen].start_T[index])
    onset_step = int(signal.steps_T[start])
    seen = float(signal.values_T[start:].mean())
    against = "" if signal.usual is None else f" against {signal.usual:.2f}"
    words = (
        f"{signal.quantity} {seen:.2f} since step {onset_step}{against}, "
        f"{worst.statistic_T[fired]:.1f} standard errors (threshold {settings.threshold:g}): {alarm.remedy}"
    )
    return AlarmReading(
        name=alarm.name,
        statistic=statistic,
        threshold=settings.threshold,
        fires=True,
        begins=fired == len(fires_T) - 1,
        onset_step=onset_step,
        fired_step=int(history.steps_T[fired]),
        action=settings.action,
        words=words,
    )


def alarm_columns(found: Sequence[AlarmReading]) -> dict[str, int | None]:
    """The alarms' columns in `metrics.jsonl`: 1 where it fires, 0 where not, None while it knows nothing."""
    return {
        f"alarm_{reading.name}": None if reading.statistic is None else int(reading.fires)
        for reading in found
    }
