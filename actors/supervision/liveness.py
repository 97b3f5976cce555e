"""Whether an actor lives: the same question again and again, one call at a time, without ever waiting for the answer."""

import time
from collections.abc import Callable
from typing import Any

import ray

EVERY_S = 1.0
"""Seconds from one question to the next."""
QUESTIONS_PER_S = 100.0
"""Of many actors each is asked less often than every second: a question costs the asker about 0.7 ms of processor time."""


def every_s(actors: int) -> float:
    """Seconds from one question to the next, for each of so many actors."""
    return max(EVERY_S, actors / QUESTIONS_PER_S)


class Liveness:
    """ask: makes the call and returns its object reference. `answer`: the last one, None before the first."""

    def __init__(self, ask: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._call: Any = None
        self._asked_s = self._heard_s = clock()
        self.answer: Any = None

    def look(self, apart_s: float = EVERY_S) -> Any:
        """Takes the answer if it is there, and asks again `apart_s` after the last question. Raises what the call raised: RayActorError
        for an actor that has died."""
        if self._call is not None and ray.wait([self._call], timeout=0)[0]:
            call, self._call = self._call, None
            self._heard_s = self._clock()
            self.answer = ray.get(call)
        if self._call is None and (self.answer is None or self._clock() - self._asked_s >= apart_s):
            self._asked_s = self._clock()
            self._call = self._ask()
        return self.answer

    @property
    def silent_s(self) -> float:
        """Seconds that the question under way has been waiting for its answer; 0 without one."""
        return 0.0 if self._call is None else self._clock() - max(self._asked_s, self._heard_s)
