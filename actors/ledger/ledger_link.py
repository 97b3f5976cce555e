"""The ledger by its name: calls of coordinator and workers reach the ledger that serves, also after a
replacement.

    call ──► named actor ──answer──► caller
      ▲          │ died, or gives no answer in time
      └──────────┘ look its name up again, until `give_up_s` without any ledger

Every call can be repeated: a lease that was lost with its ledger is void, and a report or commit that was
taken already changes nothing. So a caller does not notice that the ledger was replaced, only that the call
took longer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import ray

from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.packed_calls import call_packed
from dynalign.actors.run_spec import NAMESPACE
from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.configs.errors import DeadlineExceeded, ReplacedLedger, StaleLineage

ANSWER_S = 60.0
"""Seconds to wait for an answer of a living ledger, beyond the wait that the call itself asks for."""
_LOOK_S = 0.2
"""Seconds from one look-up of the name to the next."""

logger = logging.getLogger(__name__)


def named_actor(name: str) -> Any:
    """The handle of the actor that has this name now. Raises ValueError if there is none."""
    return ray.get_actor(name, namespace=NAMESPACE)


class LedgerLink(LedgerClient):
    """name: the ledger's Ray name. give_up_s: seconds without any ledger after which DeadlineExceeded is
    raised. lineage: that of a coordinator, which must not command the ledger of its successor; None for a
    worker, which outlives a rollback. find: see `named_actor`. clock: seconds, that of the event loop."""

    def __init__(
        self,
        name: str,
        give_up_s: float,
        lineage: int | None = None,
        find: Callable[[str], Any] = named_actor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._give_up_s = give_up_s
        self._lineage = lineage
        self._find = find
        self._clock = clock
        self._actor: Any = None

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        """The method's answer. wait_s: seconds that the call itself may wait inside the ledger.

        Raises what the method raises, and StaleLineage if the ledger that serves is of a newer lineage.
        """
        alone_s: float | None = None
        while True:
            try:
                if self._actor is None:
                    found = self._find(self._name)
                    async with asyncio.timeout(self._give_up_s):
                        serves = await found.started.remote()
                    self._refuse_other(serves)
                    self._actor = found
                # wait_for would lose a cancellation that comes together with an answer.
                async with asyncio.timeout(wait_s + ANSWER_S):
                    return await call_packed(self._actor, method, *arguments)
            except (ray.exceptions.RayError, ReplacedLedger, ValueError, TimeoutError) as error:
                replaced = isinstance(error, ReplacedLedger)
                if isinstance(error, ray.exceptions.RayError) and not replaced and death(error) is None:
                    raise root_cause(error) from error  # the method's own error, without Ray's wrapping
                if self._actor is not None:
                    logger.warning(
                        "ledger %s: %s does not answer (%s); looking for the one that serves",
                        self._name,
                        method,
                        error,
                    )
                self._actor = None
            now_s = self._clock()
            alone_s = now_s if alone_s is None else alone_s
            if now_s - alone_s > self._give_up_s:
                raise DeadlineExceeded(f"a ledger named {self._name}", self._give_up_s)
            await asyncio.sleep(_LOOK_S)

    def _refuse_other(self, serves: int) -> None:
        """Raises StaleLineage if the ledger serves a newer lineage than the caller's, ValueError if an older
        one, whose end has begun."""
        if self._lineage is not None and serves > self._lineage:
            raise StaleLineage(self._lineage, serves)
        if self._lineage is not None and serves < self._lineage:
            raise ValueError(f"the ledger of lineage {serves} is being replaced")
