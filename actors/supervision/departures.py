"""Workers that have left: the ledger is told of each, and what it then withholds as poison is passed on."""

import logging
from collections.abc import Callable, Sequence

from ray.exceptions import RayError

from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.remote import Call, Calls
from dynalign.actors.supervision.deaths import death
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.values import Break

logger = logging.getLogger(__name__)

Poisoned = Break | PoisonedItem
"""A training group or a held-out item that is withheld because its prompt broke too many workers."""


class Departures:
    """poisoned: takes what the ledger withholds."""

    def __init__(self, calls: Calls, poisoned: Callable[[Sequence[Poisoned]], None]) -> None:
        self._calls = calls
        self._poisoned = poisoned
        self._pending: list[Call[list[Poisoned]]] = []

    def tell(self, ledger: LedgerHandle, worker: str, died: bool) -> None:
        """The worker's leases go back to the queue. died: not of its own accord, so what it held may be
        why."""
        self._pending.append(ledger.worker_left.remote(worker, died))

    def settle(self) -> None:
        """Takes the answers that are there. Raises what the ledger raised, but not that it is gone."""
        ended = [call for call in self._pending if self._calls.ended(call)]
        self._pending = [call for call in self._pending if call not in ended]
        for call in ended:
            try:
                if poisoned := self._calls.answer(call):
                    self._poisoned(poisoned)
            except RayError as error:
                if death(error) is None:
                    raise
                logger.info("the ledger died before it answered that a worker had left")

    def forget(self) -> None:
        """The ledger is gone, and with it every lease."""
        self._pending = []
