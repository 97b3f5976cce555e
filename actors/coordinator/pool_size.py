"""How many rollout workers a run wants, from how long the learner waits and workers have no work.

Both are shares of a step. The pool grows when the learner starves while workers are busy, and shrinks when
workers idle while the learner does not wait: both for `PATIENCE` steps in a row, so that one odd step changes
nothing, and each change is given time to show. Between the two thresholds of a ratio nothing happens: that
gap is the hysteresis.
"""

from collections import deque
from dataclasses import dataclass

STARVED = 0.15
"""Share of the step that the learner waits for its batch, above which workers are too few."""

FED = 0.05
"""Share of the step that the learner waits, below which there may be workers too many."""

IDLE = 0.30
"""Share of the step that workers have nothing to do, above which there may be workers too many."""

BUSY = 0.15
"""Share of the step that workers have nothing to do, below which more of them would help."""

PATIENCE = 3
"""Steps that must agree."""

GROWTH = 0.25
"""Largest change at one time, as a share of the pool (one worker at least)."""


@dataclass(frozen=True)
class Decision:
    """The wanted number of workers and the reason in words."""

    wanted: int
    reason: str


class PoolSize:
    """Sizes the pool between `least` and `most`; `least == most` is a fixed size, which only `scale`
    changes."""

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self._steps: deque[tuple[float, float]] = deque(maxlen=PATIENCE)

    def decide(self, workers: int, learner_wait_fraction: float, rollout_idle_fraction: float) -> Decision:
        """The size after one more step with `workers` serving workers. Call it only while none is joining
        or leaving."""
        if self.least == self.most:
            return Decision(workers, "the size is fixed")
        self._steps.append((learner_wait_fraction, rollout_idle_fraction))
        waited = f"learner waited {learner_wait_fraction:.0%}"
        figures = f"{waited}, workers idled {rollout_idle_fraction:.0%} of the step"
        if len(self._steps) < PATIENCE:
            return Decision(workers, f"watching {PATIENCE} steps: {figures}")
        change = max(1, int(GROWTH * workers))
        if all(wait > STARVED and idle < BUSY for wait, idle in self._steps):
            return self._to(min(self.most, workers + change), workers, f"the learner starves: {figures}")
        if all(wait < FED and idle > IDLE for wait, idle in self._steps):
            return self._to(max(self.least, workers - change), workers, f"workers idle: {figures}")
        return Decision(workers, f"balanced: {figures}")

    def _to(self, wanted: int, workers: int, reason: str) -> Decision:
        if wanted == workers:
            return Decision(workers, f"{reason}; the pool is at its bound")
        self._steps.clear()
        return Decision(wanted, reason)
