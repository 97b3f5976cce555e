"""How often something may be restarted before the run ends with the cause, and how long to wait before the
next time."""

from collections import defaultdict, deque

LONGEST_DELAY_S = 30.0
"""Seconds between a death and its replacement at the most: a storage that is away for a minute must not use
the budget up."""


class RestartBudget:
    """Deaths per key within a sliding window. Times are seconds on the caller's clock."""

    def __init__(self, restarts: int, window_s: float) -> None:
        self._restarts = restarts
        self._window_s = window_s
        self._deaths_s: defaultdict[str, deque[float]] = defaultdict(deque)

    def spend(self, key: str, now_s: float) -> float | None:
        """One more death of `key`: the seconds to wait before its replacement, or None when the budget is
        used up.

        The first replacement comes at once, the next ones after 1, 2, 4 … seconds.
        """
        deaths_s = self._deaths_s[key]
        while deaths_s and now_s - deaths_s[0] >= self._window_s:
            deaths_s.popleft()
        deaths_s.append(now_s)
        if len(deaths_s) > self._restarts:
            return None
        return 0.0 if len(deaths_s) == 1 else min(LONGEST_DELAY_S, 2.0 ** (len(deaths_s) - 2))
