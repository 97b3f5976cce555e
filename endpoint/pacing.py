"""When a request may be sent, and how often: additive increase, multiplicative decrease, bounded retries.

The number of requests at once halves when the endpoint asks for fewer (429, 503, a time-out), and grows by
one for each round of answers (Chiu and Jain, "Analysis of the increase and decrease algorithms", 1989). A
busy or dead endpoint is waited for until the question's deadline, and loses no question before. What may
pass is tried a few times more, after a pause that doubles and is jittered. What will not pass is not tried
again.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from dynalign.configs.errors import EndpointRefused, EndpointUnreachable
from dynalign.endpoint.base import Answers
from dynalign.endpoint.outcome import FailedCall

FIRST_PAUSE_S = 0.5
"""Before the second try. OpenAI's own client begins with as much."""
LONGEST_PAUSE_S = 30.0
"""An endpoint that is back is noticed after this long at the latest."""
DECREASE = 0.5
"""Factor of the number of requests at once, when the endpoint asks for fewer."""

Send = Callable[[float], Awaitable[Answers | FailedCall]]
"""One try, with its time-out in seconds."""


@dataclass(frozen=True)
class Pace:
    """The bounds.

    Example: `Pace(concurrency=16, deadline_s=600.0, request_s=120.0, retries=5)`.
    """

    concurrency: int = 8
    """Most requests at once."""
    deadline_s: float = 600.0
    """For one question, from its first try to its answer."""
    request_s: float = 120.0
    """For one request."""
    retries: int = 5
    """Further tries of one question, for failures that may cost or may last. Waiting for a busy or dead
    endpoint is not counted; the deadline bounds it."""


class Pacer:
    """The turns of all questions to one endpoint, in one process."""

    def __init__(
        self,
        address: str,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """clock, sleep: in seconds. uniform: a number from 0 to 1, for the jitter."""
        self._address = address
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self.limit = float(pace.concurrency)
        """Requests that may be in flight at once."""
        self._inside = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._lowered_s = -1.0
        self._not_before_s = 0.0
        self._last_answer_s = -1.0

    async def answers(self, send: Send) -> Answers:
        """The answers, after as many tries as it takes.

        Raises EndpointRefused, or EndpointUnreachable at the deadline or when the retries are used up."""
        began_s: float | None = None
        tries = 0
        counted = 0
        while True:
            await self._enter()
            try:
                began_s = self._clock() if began_s is None else began_s
                await self._pause(began_s)
                sent_s = self._clock()
                outcome = await send(min(self._pace.request_s, self._left(began_s)))
            finally:
                self._leave()
            if isinstance(outcome, Answers):
                self._succeeded()
                return outcome
            if outcome.again == "never":
                self._last_answer_s = self._clock()
                raise EndpointRefused(self._address, outcome.cause)
            tries += 1
            counted += outcome.again == "some times"
            self._failed(outcome, sent_s)
            if counted > self._pace.retries:
                raise EndpointUnreachable(self._address, f"{outcome.cause}, {tries} times")
            await self._wait(outcome, tries, began_s)

    def _left(self, began_s: float) -> float:
        return began_s + self._pace.deadline_s - self._clock()

    async def _pause(self, began_s: float) -> None:
        """Waits until the time that the endpoint has named last."""
        while (pause_s := self._not_before_s - self._clock()) > 0:
            if pause_s > self._left(began_s):
                self._give_up(began_s, f"it asks to wait {pause_s:.0f} s more")
            await self._sleep(pause_s)

    async def _wait(self, outcome: FailedCall, tries: int, began_s: float) -> None:
        """Between two tries of one question."""
        doubled_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries - 1, 16))
        pause_s = doubled_s * (0.5 + 0.5 * self._uniform())
        if outcome.retry_after_s is not None:
            pause_s = max(pause_s, outcome.retry_after_s)
        if pause_s >= self._left(began_s):
            self._give_up(began_s, f"{outcome.cause}, {tries} times")
        await self._sleep(pause_s)

    def _give_up(self, began_s: float, cause: str) -> None:
        """Raises EndpointUnreachable: the next try would come after the deadline. Where the endpoint has
        answered nobody all this time, whoever waits for a turn is told the same, not deadline by deadline."""
        said = f"{cause}; the deadline of {self._pace.deadline_s:g} s ends the waiting"
        if self._last_answer_s < began_s:
            while self._queue:
                if not (turn := self._queue.popleft()).done():
                    turn.set_exception(EndpointUnreachable(self._address, said))
        raise EndpointUnreachable(self._address, said)

    def _succeeded(self) -> None:
        self._last_answer_s = self._clock()
        self.limit = min(float(self._pace.concurrency), self.limit + 1.0 / self.limit)
        self._admit()

    def _failed(self, outcome: FailedCall, sent_s: float) -> None:
        """Of the requests that were in flight together, only the first that fails lowers their number."""
        if outcome.slow_down and sent_s > self._lowered_s:
            self.limit = max(1.0, self.limit * DECREASE)
            self._lowered_s = self._clock()
        if outcome.retry_after_s is not None:
            self._not_before_s = max(self._not_before_s, self._clock() + outcome.retry_after_s)

    async def _enter(self) -> None:
        """A turn, first come, first served."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError, EndpointUnreachable):
                if turn.done() and turn.result() is None:
                    self._leave()
            raise

    def _leave(self) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._inside < int(self.limit):
            turn = self._queue.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
