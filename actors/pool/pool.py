"""A pool of our own engines with fixed weights, as whoever asks sees it: an `Asker`, in any process.

    ask ─► the engine with least to do ──answers──► caller
      ▲        │ it has ended, or fails at the question
      └────────┘ another engine, or its replacement, which has nothing else meanwhile (`room.py`); until
                 `deadline_s`, and until it has broken `attempts` engines in which it was alone

The engines are actors with names of their own. The supervision creates them, watches them, and replaces one
that dies or hangs under the same name (`actors/supervision/asked_actors.py`); nobody tells the callers. A
question that breaks every engine it meets does not break all of them.

What is asked offline (evaluation, generated prompts, the check of a judge) is asked in the same way. Ray
Data's `ray.data.llm` can be imported and built beside the pinned vLLM, and is not used there: it makes a
table of answers from a table of questions, and one that breaks off is asked anew from its start, where a
journal in front of a pool keeps each answer; its own tokenization makes control tokens of whatever a text
spells; and its engines are placed by itself, beside those of the plan.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import ray

from dynalign.actors.named_actor import LOOK_S, named
from dynalign.actors.packed_calls import call_packed
from dynalign.actors.pool.protocol import EngineEnding, NotAlone
from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.configs.errors import (
    DeadlineExceeded,
    DynalignError,
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    EngineError,
    one_line,
)
from dynalign.endpoint.base import Answers, Question

logger = logging.getLogger(__name__)


class _EngineGone(DynalignError):
    """The engine has ended, or ends because of the question; the message says why. had: whether it may have
    had the question. alone: nothing but the question was in it."""

    def __init__(self, why: str, had: bool, alone: bool) -> None:
        self.why = why
        self.had = had
        self.alone = alone
        super().__init__(why, had, alone)


class _Line:
    """The way to one engine. `actor` is None while no engine of that name is known to serve."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.actor: Any = None
        self.in_flight = 0
        self.connecting: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answers:
        """Beside others. Raises what the engine's actor raises; _EngineGone where another one has to be
        asked."""
        return cast(Answers, await self._call("ask", question))

    async def ask_alone(self, question: Question) -> Answers:
        """While nothing else is in the engine. Raises as `ask`."""
        ticket = secrets.token_hex(8)
        while True:
            await self._call("reserve", ticket)
            with suppress(NotAlone):
                return cast(Answers, await self._call("ask_alone", ticket, question, alone=True))

    async def _call(self, method: str, *arguments: object, alone: bool = False) -> Any:
        """alone: whether the question is in the engine, and nothing else is."""
        actor = self.actor
        self.in_flight += 1
        try:
            return await call_packed(actor, method, *arguments)
        except (ray.exceptions.RayError, DynalignError) as error:
            cause = root_cause(error)
            gone = death(error)
            if isinstance(cause, EndpointError | NotAlone):
                raise cause from error
            if gone is None and not isinstance(cause, EngineError | DeadlineExceeded):
                raise EndpointRefused(self.name, one_line(cause)) from error
            self.actor = None if self.actor is actor else self.actor
            why = f"{self.name}: {one_line(cause) if gone is None else gone.detail}"
            raise _EngineGone(why, not isinstance(cause, EngineEnding), alone) from error
        finally:
            self.in_flight -= 1


class Pool:
    """name: the pool's, for messages. engines: their Ray names. deadline_s: seconds for one question, with
    all that is waited for. attempts: engines that one question may break, being alone in them. find: as
    `named_actor.named`."""

    def __init__(
        self,
        name: str,
        engines: Sequence[str],
        deadline_s: float,
        attempts: int,
        find: Callable[[str], Any] = named,
    ) -> None:
        self._name = name
        self._lines = [_Line(engine) for engine in engines]
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._find = find

    async def ask(self, question: Question) -> Answers:
        """The answers. Raises EndpointRefused for a question that the engines cannot take, and
        EndpointUnreachable when none has answered until the deadline, or when too many ended over it."""
        broken: list[str] = []
        last = ""
        suspect = False
        clock = asyncio.timeout(self._deadline_s)
        try:
            async with clock:
                while len(broken) < self._attempts:
                    line = await self._least_loaded()
                    try:
                        return await (line.ask_alone(question) if suspect else line.ask(question))
                    except _EngineGone as gone:
                        logger.warning("%s is asked elsewhere: %s", self._name, gone.why)
                        last = gone.why
                        suspect = suspect or gone.had
                        broken += [gone.why] if gone.alone else []
        except TimeoutError as error:
            if not clock.expired():
                raise
            none = f"none of its {len(self._lines)} engines has answered within {self._deadline_s:g} s"
            cause = f"{none}; the last one ended by {last}" if last else none
            raise EndpointUnreachable(self._name, cause) from error
        cause = f"{len(broken)} engines ended while they had this question alone, the last one by {last}"
        raise EndpointUnreachable(self._name, cause)

    async def _least_loaded(self) -> _Line:
        """The serving engine with the fewest questions of this process; which of several, by chance, so that
        many callers do not begin with the same one."""
        while True:
            connecting = [self._connect(line) for line in self._lines if line.actor is None]
            if serving := [line for line in self._lines if line.actor is not None]:
                return min(serving, key=lambda line: (line.in_flight, random.random()))
            await asyncio.wait(connecting, return_when=asyncio.FIRST_COMPLETED)

    def _connect(self, line: _Line) -> "asyncio.Task[None]":
        """The task that looks for the engine, one per line."""
        if line.connecting is None or line.connecting.done():
            line.connecting = asyncio.create_task(self._look_for(line))
        return line.connecting

    async def _look_for(self, line: _Line) -> None:
        """Ends when the engine serves, or after the deadline of a question: the next one begins anew."""
        clock = asyncio.timeout(self._deadline_s)
        try:
            async with clock:
                while line.actor is None:
                    try:
                        found = self._find(line.name)
                        await found.started.remote()
                        line.actor = found
                    except (ray.exceptions.RayError, EngineError, ValueError):  # not there yet, or ending
                        await asyncio.sleep(LOOK_S)
        except TimeoutError:
            if not clock.expired():
                raise
