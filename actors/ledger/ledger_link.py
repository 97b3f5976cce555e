"""The ledger by its name: calls of coordinator and workers reach the ledger that serves, also after a
replacement (`actors/named_actor.py`).

Every call can be repeated: a lease that was lost with its ledger is void, and a report or commit that was
taken already changes nothing. So a caller does not notice that the ledger was replaced, only that the call
took longer.
"""

import time
from collections.abc import Callable
from typing import Any

from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.named_actor import NamedActor, named
from dynalign.configs.errors import ReplacedLedger, StaleLineage


class LedgerLink(LedgerClient):
    """name: the ledger's Ray name. give_up_s: seconds without any ledger after which DeadlineExceeded is
    raised. lineage: that of a coordinator, which must not command the ledger of its successor; None for a
    worker, which outlives a rollback. find, clock: see `NamedActor`."""

    def __init__(
        self,
        name: str,
        give_up_s: float,
        lineage: int | None = None,
        find: Callable[[str], Any] = named,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lineage = lineage
        self._ledger = NamedActor(
            "ledger", name, give_up_s, (ReplacedLedger,), self._refuse_other, find, clock
        )

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        """The method's answer. wait_s: seconds that the call itself may wait inside the ledger.

        Raises what the method raises, and StaleLineage if the ledger that serves is of a newer lineage.
        """
        return await self._ledger.call(method, *arguments, wait_s=wait_s)

    def _refuse_other(self, serves: int) -> None:
        """Raises StaleLineage if the ledger serves a newer lineage than the caller's, ValueError if an older
        one, whose end has begun."""
        if self._lineage is not None and serves > self._lineage:
            raise StaleLineage(self._lineage, serves)
        if self._lineage is not None and serves < self._lineage:
            raise ValueError(f"the ledger of lineage {serves} is being replaced")
