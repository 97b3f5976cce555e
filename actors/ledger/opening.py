"""Opens the ledger of a run folder: checkpoint, log and spool become the rules' state."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from dynalign.actors.ledger.ledger_spec import LedgerSpec, ledger_settings
from dynalign.configs.errors import CheckpointError
from dynalign.rollout import added_prompts
from dynalign.rollout.ledger.evaluation_leases import EvaluationResult
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.restore import heldout_answers, opening, prompt_changes, restore
from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.prompts import PromptOrder
from dynalign.run_folder import durable, layout, owner, spool
from dynalign.run_folder.layout import step_folder

ADDED = "added_prompts"
"""Where the files of added prompts are in a snapshot: hash → content."""


class OpenedLedger(NamedTuple):
    """What a run folder's ledger goes on from: `OpenedLedger(ledger, log, answered=())`."""

    ledger: Ledger
    """The rules' state."""
    log: LedgerLog
    """The log, in which the opening is on disk."""
    answered: tuple[EvaluationResult, ...]
    """Held-out answers of the newest evaluation of the lineage."""


async def open_ledger(spec: LedgerSpec, fsync: Callable[[int], object]) -> OpenedLedger:
    """The ledger of a run folder. fsync: see `LedgerLog`.

    Raises StaleLineage when another driver owns the run folder; CheckpointError, RecordError or StaleLineage
    if checkpoint, log and lineage do not fit together; OSError from the disk.
    """
    folder = Path(spec.run_folder)
    owner.check(folder, spec.lineage)
    snapshot = _read_snapshot(folder, spec.step) if spec.step else None
    log = LedgerLog(folder / layout.LEDGER_LOG, fsync)
    spooled = await asyncio.to_thread(spool.scan, folder / layout.SPOOL)
    await asyncio.to_thread(durable.remove_leftovers, folder / layout.SPOOL, time.time())
    order = PromptOrder(spec.prompts_count, spec.run.seed)
    ledger = restore(ledger_settings(spec.run), order, snapshot, log.lines, spooled, spec.lineage)
    logged = prompt_changes(log.lines)
    missing = [change for change in ledger.state.prompt_changes if change not in logged]
    log.append(*missing, opening(ledger, snapshot, log.lines), durable=True)
    if snapshot is not None:
        await asyncio.to_thread(added_prompts.put_back, folder, snapshot.get(ADDED, {}))
    answered = heldout_answers(log.lines, spec.lineage)
    log.lines = ()  # the ledger has what it needs of them; a long run's lines would fill the memory
    return OpenedLedger(ledger, log, answered)


def _read_snapshot(folder: Path, step: int) -> dict[str, Any]:
    path = step_folder(folder / layout.CHECKPOINTS, step) / layout.LEDGER_STATE
    try:
        snapshot: dict[str, Any] = msgpack.unpackb(path.read_bytes())
    except (OSError, ValueError, msgpack.UnpackException) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(snapshot, dict) or snapshot.get("version") != step:
        raise CheckpointError(f"{path} is not the ledger of step {step}")
    return snapshot
