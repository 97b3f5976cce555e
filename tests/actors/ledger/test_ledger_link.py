"""Which ledger a call reaches, among those that had the name one after another. No Ray."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.packed_calls import PackedCalls
from dynalign.configs.errors import DeadlineExceeded, StaleLineage


class Served(PackedCalls):
    """A ledger of `lineage`, and its handle."""

    def __init__(self, lineage: int) -> None:
        self.lineage = lineage
        self.asked = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return SimpleNamespace(remote=found) if name in ("started", "packed") else found

    async def started(self) -> int:
        return self.lineage

    async def pause(self) -> None:
        self.asked += 1


def pause(lineage: int | None, *served: Served) -> None:
    """Asks the ledgers that have the name at one look-up after another; the last one keeps it."""
    left = list(served)
    seconds = iter(range(1000))

    async def story() -> None:
        link = LedgerLink(
            "ledger",
            3.0,
            lineage,
            lambda _: left.pop(0) if len(left) > 1 else left[0],
            lambda: float(next(seconds)),
        )
        await asyncio.wait_for(link.pause(), 20)

    asyncio.run(story())


def test_a_coordinator_that_was_replaced_commands_no_ledger_of_its_successor() -> None:
    successor = Served(2)
    with pytest.raises(StaleLineage, match="lineage 1 was replaced by lineage 2"):
        pause(1, successor)
    assert successor.asked == 0


def test_a_coordinator_waits_for_the_ledger_of_its_own_lineage() -> None:
    before = Served(1)
    mine = Served(2)
    pause(2, before, mine)
    assert (before.asked, mine.asked) == (0, 1)
    with pytest.raises(DeadlineExceeded, match="a ledger named ledger"):
        pause(2, before)


def test_a_worker_outlives_a_rollback_and_asks_whichever_ledger_serves() -> None:
    ledger = Served(7)
    pause(None, ledger)
    assert ledger.asked == 1
