"""The history of a run as alarms read it: columns of `metrics.jsonl`, bounded in length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalign.evaluation.alarms.cusum import Steps, Values

FIRST_ROWS = 256
"""Rows kept from the start of a run: they hold every alarm's reference, that of held-out figures too."""
NEWEST_ROWS = 512
"""Rows kept from its end."""


def bounded(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that alarms read: the first 256, and the newest 512 of the others."""
    return [*rows[:FIRST_ROWS], *rows[FIRST_ROWS:][-NEWEST_ROWS:]]


@dataclass(frozen=True)
class Column:
    """The values of one metric where it was measured. Example: `Column(array([1, 2]), array([0, 1]),
    array([1.5, 1.6]))`."""

    steps_T: Steps
    """The steps at which it was measured."""
    rows_T: Steps
    """Where these steps stand in the history."""
    values_T: Values
    """The values, in the metric's unit."""


class History:
    """Columns by the name of their metric, in the order of the steps.

    Example: `History([{"step": 1, "reward_mean": 2.5}]).column("reward_mean")`.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._read: dict[str, Values] = {}
        self.steps_T: Steps = np.array([row["step"] for row in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str, *besides: str) -> Column:
        """A metric at the steps that have it, and have `besides` too."""
        present_T = ~np.isnan(self._values(name))
        for other in besides:
            present_T &= ~np.isnan(self._values(other))
        rows_T = np.flatnonzero(present_T)
        return Column(self.steps_T[rows_T], rows_T, self._values(name)[rows_T])

    def _values(self, name: str) -> Values:
        """A metric at every row; NaN where it is null, or unknown to the version that wrote the row."""
        if name not in self._read:
            self._read[name] = np.array([row.get(name) for row in self._rows], dtype=np.float64)
        return self._read[name]

    def typical(self, name: str, most: int) -> float | None:
        """The mean of the first `most` values of a metric; None without any."""
        values_T = self.column(name).values_T[:most]
        return float(values_T.mean()) if len(values_T) else None

    def candidates(self, most: int) -> float:
        """Candidates of a step, as a mean over the first `most` steps; 1 where that is not known."""
        tokens = self.column("completion_tokens", "completion_length_mean").values_T[:most]
        lengths = self.column("completion_length_mean", "completion_tokens").values_T[:most]
        counts = tokens[lengths > 0] / lengths[lengths > 0]
        return max(1.0, float(counts.mean())) if len(counts) else 1.0
