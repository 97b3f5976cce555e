"""A checkpoint from the coordinator's side: one consistent cut of learner and ledger, whole or not there at all."""

import asyncio
from pathlib import Path

from actors.learner_group import LearnerGroup
from actors.run_place import RunPlace
from learner import checkpoint
from rollout import owner

LEDGER_FILE = "ledger.msgpack"


async def write_checkpoint(place: RunPlace, step: int, learner: LearnerGroup, ledger: bytes) -> Path:
    """Writes aside, then renames; prunes older ones afterwards, so that a full disk costs the new checkpoint, never the last one.

    Raises StaleLineage when another driver has taken the run over.
    """
    run_folder = Path(place.run_folder)
    checkpoints = run_folder / "checkpoints"
    owner.check(run_folder, place.lineage)
    aside = checkpoint.aside_folder(checkpoints, step, place.lineage)
    aside.mkdir(parents=True, exist_ok=True)
    group_ids = await learner.save(aside, step)
    (aside / LEDGER_FILE).write_bytes(ledger)
    owner.check(run_folder, place.lineage)
    fixed = checkpoint.fixed_settings(place.run, place.prompts_hash)
    whole = await asyncio.to_thread(checkpoint.seal, checkpoints, place.run.name, place.lineage, step, group_ids, fixed)
    await asyncio.to_thread(checkpoint.prune, checkpoints, place.run.checkpoint.keep_last)
    return whole
