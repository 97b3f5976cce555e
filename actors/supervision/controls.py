"""What a person has asked of the run: kept, so that a coordinator's successor gets it too."""

from collections.abc import Callable

from dynalign.configs.errors import RunFailed

_OPPOSITE = {"pause": "resume", "resume": "pause"}


class Controls:
    """clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: list[str] = []
        self._hurried_s: float | None = None

    def ask(self, what: str) -> None:
        """`pause`, `resume` or `stop`; `pause` and `resume` undo each other."""
        if _OPPOSITE.get(what) in self._asked:
            self._asked.remove(_OPPOSITE[what])
        if what not in self._asked:
            self._asked.append(what)

    def hurry(self) -> None:
        """From now on the run has `deadlines.stop_s` to stop. Asked again, the first time counts."""
        self._hurried_s = self._clock() if self._hurried_s is None else self._hurried_s

    def keep_deadline(self, stop_s: float, cause: str | None) -> None:
        """Raises RunFailed more than `stop_s` seconds after `hurry`. cause: why the run ends, None for a
        person."""
        if self._hurried_s is not None and self._clock() - self._hurried_s > stop_s:
            late = f"the step under way and its checkpoint did not end within deadlines.stop_s={stop_s:g}"
            raise RunFailed(f"{cause}; {late}" if cause else late)

    def lasting(self) -> tuple[str, ...]:
        """What a new coordinator has to be asked for, in the order in which it was asked."""
        return tuple(self._asked)
