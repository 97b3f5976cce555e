"""The audit trail: every trained group with its advantages, readable without the learner."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from dynalign.configs.errors import RecordError, StaleLineage
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.experience import prune, read_step, write_step
from dynalign.run_folder import owner
from dynalign.run_folder.layout import experience_file
from tests.worlds.tiny_groups import payloads, random_groups


def batch_of(seed: int = 0) -> TrainingBatch:
    return TrainingBatch.of(decode_groups(*payloads(random_groups(3, seed=seed, behaviour=True))), "group")


def test_a_step_reads_back_as_it_was_trained(tmp_path: Path) -> None:
    batch = batch_of()
    file = write_step(tmp_path / "experience", 12, batch)
    assert file.name == "step-000012.arrow"
    sent = [
        group
        for group, _ in zip(decode_groups(*payloads(random_groups(3, behaviour=True))), range(3), strict=True)
    ]
    found = list(read_step(file))
    assert [group.group_id for group, _ in found] == [group.group_id for group in sent]
    assert tuple(advantages for _, advantages in found) == batch.advantages_PG
    assert [group for group, _ in found] == [group for group, _ in read_step(write_step(tmp_path, 1, batch))]


def test_a_step_written_again_replaces_the_file(tmp_path: Path) -> None:
    write_step(tmp_path, 1, batch_of(0))
    write_step(tmp_path, 1, batch_of(1))
    assert (
        tuple(advantages for _, advantages in read_step(experience_file(tmp_path, 1)))
        == batch_of(1).advantages_PG
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.arrow"]


def test_a_learner_whose_run_was_taken_over_does_not_replace_its_successor_s_step(tmp_path: Path) -> None:
    first = owner.acquire(tmp_path, now_s=1.0)
    second = owner.acquire(tmp_path, now_s=100.0)
    file = write_step(tmp_path, 1, batch_of(0), partial(owner.fenced, tmp_path, second.lineage))
    before = file.read_bytes()
    with pytest.raises(StaleLineage):
        write_step(tmp_path, 1, batch_of(1), partial(owner.fenced, tmp_path, first.lineage))
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.aside"))


def test_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "other.arrow"
    with (
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_stream(sink, pa.schema([("x", pa.int32())])) as writer,
    ):
        writer.write_batch(pa.record_batch({"x": pa.array([1], pa.int32())}))
    with pytest.raises(RecordError, match="other.arrow: records of schema 'none'"):
        list(read_step(file))


def test_a_file_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    file = write_step(tmp_path, 1, batch_of())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(RecordError, match=r"step-000001.arrow: damaged"):
        list(read_step(file))


@pytest.mark.parametrize(
    ("keep_steps", "kept"),
    [(None, [1, 2, 9, 10, 11]), (3, [9, 10, 11]), (1, [11]), (0, []), (50, [1, 2, 9, 10, 11])],
)
def test_the_newest_steps_are_kept_by_number_and_those_of_a_history_that_was_given_up_go(
    tmp_path: Path, keep_steps: int | None, kept: list[int]
) -> None:
    """The learner went back and has just trained step 11 again; 12 and 13 are from before."""
    for step in (1, 2, 9, 10, 11, 12, 13):
        experience_file(tmp_path, step).write_bytes(b"")
    removed = prune(tmp_path, keep_steps, 11)
    assert sorted(tmp_path.iterdir()) == [experience_file(tmp_path, step) for step in kept]
    assert removed == [
        experience_file(tmp_path, step) for step in (1, 2, 9, 10, 11, 12, 13) if step not in kept
    ]
