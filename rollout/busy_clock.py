"""A clock that runs while at least one task is inside: seconds of an activity that overlaps with itself."""

import time
from types import TracebackType


class BusyClock:
    """Put `with clock:` around each task; `total_s` is the time during which one or more were inside."""

    def __init__(self) -> None:
        self._inside = 0
        self._since_s = 0.0
        self._total_s = 0.0

    def __enter__(self) -> None:
        if self._inside == 0:
            self._since_s = time.monotonic()
        self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
        if self._inside == 0:
            self._total_s += time.monotonic() - self._since_s

    @property
    def total_s(self) -> float:
        """Wall-clock seconds so far, the present activity included."""
        running_s = time.monotonic() - self._since_s if self._inside else 0.0
        return self._total_s + running_s
