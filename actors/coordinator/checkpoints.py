"""A checkpoint from the coordinator's side: one consistent cut of learner and ledger, sealed or not there."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError

from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import CheckpointWriteFailed, DeadlineExceeded, LearnerLost, StaleLineage
from dynalign.run_folder import checkpoint, layout, owner, spool
from dynalign.run_folder.metrics import best_rewards

logger = logging.getLogger(__name__)

_REMOVED_AT_ONCE = 100
"""Files of the spool that are removed under one lock of the owner, for which a heartbeat may wait."""


class Saver(Protocol):
    """What is asked of the learner: its part of a checkpoint into a folder aside; the groups that `step`
    trained."""

    async def save(self, aside: Path, step: int) -> tuple[int, ...]: ...


async def write_checkpoint(spec: RunSpec, step: int, learner: Saver, ledger: bytes) -> Path:
    """Writes aside, then renames, and returns the whole checkpoint's folder. Older ones are removed
    afterwards, so that a full disk costs the new checkpoint, never the last one.

    Raises CheckpointWriteFailed for whatever the storage refuses, here or at a learner rank: the
    checkpoints before are untouched, learner and ledger go on, and it can be tried again. Raises
    StaleLineage when another driver has taken the run over, and what the learner raises when it is lost.
    """
    run_folder = Path(spec.run_folder)
    checkpoints = run_folder / layout.CHECKPOINTS
    # A coordinator that hung may wake once more while its successor writes: each has a folder of its own,
    # so that neither seals what the other one has half written.
    writer = secrets.token_hex(4)
    aside = layout.aside_folder(checkpoints, step, spec.lineage, writer)
    owner.check(run_folder, spec.lineage)
    try:
        await asyncio.to_thread(_room_for, aside)
        group_ids = await learner.save(aside, step)
        await asyncio.to_thread((aside / layout.LEDGER_STATE).write_bytes, ledger)
        fixed = checkpoint.fixed_settings(spec.run, spec.prompts_hash, spec.content or None)
        fence = partial(owner.fenced, run_folder, spec.lineage)
        whole = await asyncio.to_thread(
            checkpoint.seal, checkpoints, spec.run.name, spec.lineage, step, group_ids, fixed, fence, writer
        )
    except (DeadlineExceeded, LearnerLost, StaleLineage):
        raise  # an OSError and two RuntimeErrors that say nothing about the storage
    except (OSError, RuntimeError, SafetensorError) as error:
        # A RuntimeError or SafetensorError: torch and safetensors have their own words for a full disk.
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
        raise CheckpointWriteFailed(step, str(error), str(checkpoints), _free_bytes(run_folder)) from error
    await asyncio.to_thread(_prune, spec, checkpoints)
    return whole


async def clear_spool(run_folder: Path, lineage: int, step: int, ledger: LedgerCalls) -> None:
    """The checkpoint of `step` is whole: files that only an older cut could need are removed. ledger: it
    says which they are, and is not held up by thousands of removals. The folder is listed before that, so
    that no file can appear in between.

    Raises StaleLineage once another driver has taken the run over; from then on no file is removed.
    """
    listed = await asyncio.to_thread(spool.names, run_folder / layout.SPOOL)
    doomed = await ledger.forget(step, listed)
    await asyncio.to_thread(_remove_from_spool, run_folder, lineage, doomed)


def _remove_from_spool(run_folder: Path, lineage: int, names: Sequence[str]) -> None:
    for first in range(0, len(names), _REMOVED_AT_ONCE):
        with owner.fenced(run_folder, lineage):
            spool.remove(run_folder / layout.SPOOL, names[first : first + _REMOVED_AT_ONCE])


def _room_for(aside: Path) -> None:
    """What writers before left aside goes first: on a full disk it is what the new one needs."""
    aside.parent.mkdir(exist_ok=True)
    checkpoint.clear_aside(aside.parent)
    aside.mkdir()


def _prune(spec: RunSpec, checkpoints: Path) -> None:
    """An old one that cannot be removed costs its space, not the run."""
    keep = spec.run.checkpoint
    try:
        checkpoint.clear_aside(checkpoints)
        checkpoint.prune(
            checkpoints, keep.keep_last, keep.keep_best, best_rewards(checkpoints.parent, keep.keep_best)
        )
    except OSError as error:
        logger.warning("an old checkpoint cannot be removed: %s", error)


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
