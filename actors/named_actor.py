"""An actor by its Ray name: each call reaches the one that has the name now, also after a replacement.

    call ──► named actor ──answer──► caller
      ▲          │ died, or gives no answer in time
      └──────────┘ look its name up again, until `give_up_s` without any actor of that name

It is for actors whose calls can be repeated: a caller does not notice that the actor was replaced, only that
the call took longer. Each has a method `started`, which returns once it can answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import ray

from dynalign.actors.packed_calls import call_packed
from dynalign.actors.run_spec import NAMESPACE
from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.configs.errors import DeadlineExceeded

ANSWER_S = 60.0
"""Seconds to wait for an answer of a living actor, beyond the wait that the call itself asks for."""
LOOK_S = 0.2
"""Seconds from one look-up of a name to the next."""

logger = logging.getLogger(__name__)


def named(name: str) -> Any:
    """The handle of the actor that has this name. Raises ValueError where none has it."""
    return ray.get_actor(name, namespace=NAMESPACE)


class NamedActor:
    """what: the kind of actor, for messages. give_up_s: seconds without any actor of that name after which
    DeadlineExceeded is raised. replaced: what an actor raises whose place another one has taken. accept: gets
    the answer of `started`, and raises ValueError for an actor whose successor is waited for. find: as
    `named`. clock: seconds, that of the event loop."""

    def __init__(
        self,
        what: str,
        name: str,
        give_up_s: float,
        replaced: tuple[type[Exception], ...] = (),
        accept: Callable[[Any], None] | None = None,
        find: Callable[[str], Any] = named,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._name = name
        self._give_up_s = give_up_s
        self._replaced = replaced
        self._expected: tuple[type[BaseException], ...] = (
            ray.exceptions.RayError,
            ValueError,
            TimeoutError,
            *replaced,
        )
        self._accept = accept
        self._find = find
        self._clock = clock
        self._actor: Any = None

    async def call(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        """The method's answer. wait_s: seconds that the call itself may wait inside the actor.

        Raises what the method raises.
        """
        alone_s: float | None = None
        while True:
            try:
                if self._actor is None:
                    found = self._find(self._name)
                    async with asyncio.timeout(self._give_up_s):
                        started = await found.started.remote()
                    if self._accept is not None:
                        self._accept(started)
                    self._actor = found
                # wait_for would lose a cancellation that comes together with an answer.
                async with asyncio.timeout(wait_s + ANSWER_S):
                    return await call_packed(self._actor, method, *arguments)
            except self._expected as error:
                if not self._is_away(error):
                    raise root_cause(error) from error  # the method's own error, without Ray's wrapping
                if self._actor is not None:
                    logger.warning(
                        "%s %s: %s does not answer (%s); looking for the one that serves",
                        self._what,
                        self._name,
                        method,
                        error,
                    )
                self._actor = None
            now_s = self._clock()
            alone_s = now_s if alone_s is None else alone_s
            if now_s - alone_s > self._give_up_s:
                raise DeadlineExceeded(f"a {self._what} named {self._name}", self._give_up_s)
            await asyncio.sleep(LOOK_S)

    def _is_away(self, error: BaseException) -> bool:
        """Whether the actor is gone, or was replaced; everything else is its answer."""
        if isinstance(error, self._replaced):
            return True
        return not isinstance(error, ray.exceptions.RayError) or death(error) is not None
