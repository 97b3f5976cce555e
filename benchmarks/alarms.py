"""job: how often each alarm fires without a cause, and how soon with one, on simulated runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynalign.benchmarks.simulated_runs import FAULTS, Fault, Shape, simulate
from dynalign.benchmarks.workload import Workload
from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.evaluation.alarms.alarms import ALARMS, Alarm, settings_of, statistics
from dynalign.evaluation.alarms.cusum import firing
from dynalign.evaluation.alarms.history import History

SOON_STEPS = 10
"""Steps after the onset within which an alarm has to fire."""
EARLIEST_ONSET = 60
LATEST_ONSET = 120
UNNOTICED = 60
"""Steps after the onset at which a simulated run ends, and an alarm that was silent counts as such."""
SHAPES = (Shape(prompts=4), Shape(prompts=8), Shape(prompts=32))
"""Clean runs of all these sizes are counted together; faults are planted in runs of the middle one."""


@dataclass(frozen=True)
class FalseAlarms:
    """What fired in clean runs. Example: `FalseAlarms(4000, {"injection": 1, …})`."""

    steps: int
    """Steps of all runs."""
    times: Mapping[str, int]
    """Alarm → how often it began to fire."""

    def per_1000(self, name: str) -> float:
        """False alarms of one alarm per 1,000 clean steps."""
        return 1000 * self.times[name] / self.steps


def _threshold(alarm: Alarm) -> float:
    return settings_of(alarm, AlarmsSettings()).threshold


def false_alarms(seeds: Iterable[int], shapes: Iterable[Shape]) -> FalseAlarms:
    """Clean runs, one for each seed and shape, and what fired in them, at the default thresholds."""
    times = dict.fromkeys((alarm.name for alarm in ALARMS), 0)
    steps = 0
    kept = tuple(shapes)
    for seed in seeds:
        for index, shape in enumerate(kept):
            rows = simulate(np.random.default_rng((seed, index)), shape)
            steps += len(rows)
            history = History(rows)
            for alarm in ALARMS:
                fires_T = firing(statistics(alarm, history), _threshold(alarm))
                times[alarm.name] += int(np.diff(fires_T.astype(int), prepend=0).clip(0).sum())
    return FalseAlarms(steps, times)


def delays(fault: Fault, seeds: Iterable[int], size: float = 1.0) -> list[float]:
    """Steps from the onset to the alarm of that fault, one for each seed; infinite where it was silent until
    the run ended. An alarm that fires before the onset counts as silent: not the fault made it fire."""
    [alarm] = [alarm for alarm in ALARMS if alarm.name == fault.alarm]
    found: list[float] = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 7))
        onset_step = int(rng.integers(EARLIEST_ONSET, LATEST_ONSET))
        rows = simulate(rng, Shape(steps=onset_step + UNNOTICED), fault, onset_step, size)
        fires_T = firing(statistics(alarm, History(rows)), _threshold(alarm))
        first = int(fires_T.argmax()) if fires_T.any() else -1
        found.append(float(first + 1 - onset_step) if first + 1 >= onset_step else float("inf"))
    return found


def soon_fraction(found: list[float]) -> float:
    """Share of the seeds in which the alarm fired within SOON_STEPS of the onset."""
    return float(np.mean([delay <= SOON_STEPS for delay in found]))


def measure(workload: Workload) -> dict[str, list[float]]:
    """False alarms per 1,000 clean steps, and per fault the share found soon and the delays."""
    return figures_over(range(4 if workload.quick else 100), SHAPES)


def figures_over(seeds: Sequence[int], shapes: Sequence[Shape]) -> dict[str, list[float]]:
    """The figures of the catalog over these seeds: clean runs of each shape, and every fault."""
    clean = false_alarms(seeds, shapes)
    rates = {alarm.name: clean.per_1000(alarm.name) for alarm in ALARMS}
    found = {f"alarm_{name}_false": [rate] for name, rate in rates.items()}
    found["alarms_false_worst"] = [max(rates.values())]
    found["alarms_false_together"] = [sum(rates.values())]
    shares = []
    for index, fault in enumerate(FAULTS):
        whole = delays(fault, seeds)
        shares.append(soon_fraction(whole))
        name = f"alarm_{fault.alarm}_{index}"
        found[f"{name}_soon"] = [shares[-1]]
        found[f"{name}_soon_half"] = [soon_fraction(delays(fault, seeds, size=0.5))]
        found[f"{name}_delay"] = [delay if np.isfinite(delay) else float(UNNOTICED) for delay in whole]
    found["alarms_soon_worst"] = [min(shares)]
    return found
