"""Whether an actor lives: the same question again and again, one call at a time, never waiting for the
answer."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dynalign.actors.remote import Call, Calls

T = TypeVar("T")

EVERY_S = 1.0
"""Seconds from one question to the next."""

QUESTIONS_PER_S = 100.0
"""Upper bound for all actors together. A question costs the caller about 0.7 ms of processor time, so that of
many actors each is asked less often than every second."""


def every_s(actors: int) -> float:
    """Seconds from one question to the next, for each of so many actors."""
    return max(EVERY_S, actors / QUESTIONS_PER_S)


class Liveness(Generic[T]):
    """One actor's signs of life. ask: makes the call. clock: seconds, monotonic.

    `answer` is the last one, None before the first.
    """

    def __init__(
        self, ask: Callable[[], Call[T]], calls: Calls, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._calls = calls
        self._clock = clock
        self._call: Call[T] | None = None
        self._asked_s = clock()
        self._answered_s = clock()
        self.answer: T | None = None

    def look(self, apart_s: float = EVERY_S) -> T | None:
        """Takes the answer if it is there, and asks again `apart_s` seconds after the last question.

        Raises what the call raised; `deaths.death` says whether the actor is gone.
        """
        if self._call is not None and self._calls.ended(self._call):
            call = self._call
            self._call = None
            self._answered_s = self._clock()
            self.answer = self._calls.answer(call)
        if self._call is None and (self.answer is None or self._clock() - self._asked_s >= apart_s):
            self._asked_s = self._clock()
            self._call = self._ask()
        return self.answer

    @property
    def silent_s(self) -> float:
        """Seconds that the present question has been waiting for its answer; 0 without one."""
        return 0.0 if self._call is None else self._clock() - max(self._asked_s, self._answered_s)
