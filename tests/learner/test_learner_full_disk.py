"""A real learner that cannot write its checkpoint goes on as if it had not been asked."""

import asyncio
from pathlib import Path

import pytest

from dynalign.actors.coordinator.checkpoints import write_checkpoint
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import CheckpointWriteFailed
from dynalign.run_folder import owner
from dynalign.run_folder.checkpoint import newest_whole, verify
from dynalign.run_folder.layout import step_folder
from tests.worlds.one_rank import Learner
from tests.worlds.small_disk import full, read_only, small_disk
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama


class Rank:
    """Rank 0 of one, as its actor saves it."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        self.learner.save(aside / "deepspeed")
        self.learner.export(aside / "hf")
        return self.learner.trained_group_ids(step)


def loss_of(learner: Learner, step: int) -> float:
    learner.prepare(step, *payloads(random_groups(2, seed=step)))
    loss = learner.run(step)["loss"]
    assert loss is not None
    return float(loss)


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_a_checkpoint_that_fails_in_deepspeed_or_in_the_export_changes_nothing_for_the_learner(
    tmp_path: Path, zero_stage: int
) -> None:
    llama = tiny_llama(tmp_path / "llama")
    run = settings(llama, zero_stage=zero_stage)
    straight, learner = Learner(run, llama, 0, 1), Learner(run, llama, 0, 1)
    with small_disk(tmp_path / "disk", 4096) as disk:
        place = RunSpec(run, str(disk), owner.acquire(disk, now_s=1.0).lineage, 0, "hash")

        def write(step: int) -> Path:
            return asyncio.run(write_checkpoint(place, step, Rank(learner), b"ledger"))

        assert loss_of(learner, 1) == loss_of(straight, 1)
        size_kib = sum(entry.size_bytes for entry in verify(write(1)).files.values()) // 1024
        for step, free_kib in (
            (2, 8),
            (3, size_kib // 2),
            (4, size_kib - 8),
        ):  # in the state, in between, in the export
            assert loss_of(learner, step) == loss_of(straight, step)
            with full(disk, free_kib), pytest.raises(CheckpointWriteFailed):
                write(step)
        with read_only(disk), pytest.raises(CheckpointWriteFailed, match="ead-only file system"):
            write(4)
        assert newest_whole(disk / "checkpoints") == step_folder(disk / "checkpoints", 1)
        assert Learner(run, llama, 0, 1).load(verified(step_folder(disk / "checkpoints", 1))) == 1
        assert loss_of(learner, 5) == loss_of(straight, 5)
        assert Learner(run, llama, 0, 1).load(verified(write(5))) == 5


def verified(folder: Path) -> Path:
    verify(folder)
    return folder / "deepspeed"
