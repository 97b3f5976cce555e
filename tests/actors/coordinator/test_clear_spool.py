"""The spool is cleared by the driver that owns the run, and by nobody else."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign.actors.coordinator.checkpoints import clear_spool
from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.configs.errors import StaleLineage
from dynalign.run_folder import layout, owner, spool

FILES = 250
"""More than are removed under one lock."""


class Ledger(LedgerClient):
    """Every file can go. takes_over: another driver does so before the answer comes."""

    def __init__(self, run_folder: Path, takes_over: bool) -> None:
        self._run_folder = run_folder
        self._takes_over = takes_over

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Sequence[str]:
        assert method == "forget"
        if self._takes_over:
            owner.acquire(self._run_folder, now_s=1000.0)
        step, listed = arguments
        assert step == 4
        return list(listed)


def cleared(run_folder: Path, takes_over: bool) -> tuple[str, ...]:
    """The files that are left."""
    mine = owner.acquire(run_folder, now_s=1.0)
    for group_id in range(FILES):
        spool.write(run_folder / layout.SPOOL, layout.group_file(group_id, mine.lineage, 1), b"group")
    asyncio.run(clear_spool(run_folder, mine.lineage, 4, Ledger(run_folder, takes_over)))
    return spool.names(run_folder / layout.SPOOL)


def test_what_no_checkpoint_needs_is_removed(tmp_path: Path) -> None:
    assert cleared(tmp_path, takes_over=False) == ()


def test_a_driver_that_was_taken_over_removes_nothing_though_its_ledger_has_said_what_can_go(
    tmp_path: Path,
) -> None:
    with pytest.raises(StaleLineage):
        cleared(tmp_path, takes_over=True)
    assert len(spool.names(tmp_path / layout.SPOOL)) == FILES
