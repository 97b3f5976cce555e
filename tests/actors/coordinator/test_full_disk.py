"""A full disk, a read-only one, a torn file: what was whole stays whole, and nothing half-written is
acknowledged."""

import asyncio
import errno
from pathlib import Path

import pytest

from dynalign.actors.coordinator.checkpoints import write_checkpoint
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import CheckpointError, CheckpointWriteFailed, StaleLineage, UserError
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.rollout.ledger.log import LedgerLog, read
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.values import Commit
from dynalign.run_folder import layout, owner, spool
from dynalign.run_folder.checkpoint import newest_whole, verify
from dynalign.run_folder.layout import step_folder
from tests.worlds.ledger_actor_world import RUN
from tests.worlds.small_disk import full, read_only, small_disk

COMMIT = Commit(1, 1, tuple(range(60)), ())


class Learner:
    """Writes so many bytes, as two files."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        for name in ("deepspeed", "hf"):
            (aside / name).mkdir()
            (aside / name / "part").write_bytes(bytes(self.size_bytes // 2))
        return (2 * step, 2 * step + 1)


def place_on(disk: Path) -> RunSpec:
    run = RUN.model_copy(update={"checkpoint": CheckpointSettings(keep_last=2)})
    return RunSpec(run, str(disk), owner.acquire(disk, now_s=1.0).lineage, 0, "hash")


def write(place: RunSpec, step: int, learner: Learner) -> Path:
    return asyncio.run(write_checkpoint(place, step, learner, b"ledger"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TakenOver(Learner):
    """While it writes, another driver takes the run over and seals its own checkpoint of the same step."""

    def __init__(self, disk: Path) -> None:
        super().__init__(1024)
        self.disk = disk

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        other = owner.acquire(self.disk, now_s=1000.0)
        spec = RunSpec(RUN, str(self.disk), other.lineage, 0, "hash")
        await write_checkpoint(spec, step, Learner(1024), b"ledger")
        aside.mkdir(exist_ok=True)
        return await super().save(aside, step)


def test_a_driver_that_was_taken_over_does_not_replace_its_successor_s_checkpoint(tmp_path: Path) -> None:
    place = place_on(tmp_path)
    with pytest.raises(StaleLineage, match="lineage 1 was replaced by lineage 2"):
        write(place, 1, TakenOver(tmp_path))
    assert verify(step_folder(tmp_path / layout.CHECKPOINTS, 1)).lineage == 2


class Interrupted(Learner):
    """Between its two files the coordinator that hung wakes, writes one of the same step, and is gone."""

    def __init__(self, place: RunSpec) -> None:
        super().__init__(1024)
        self.place = place

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        (aside / "deepspeed").mkdir()
        (aside / "deepspeed" / "part").write_bytes(b"successor")
        with pytest.raises(asyncio.CancelledError):
            await write_checkpoint(self.place, step, Woken(1024), b"ledger")
        (aside / "hf").mkdir()
        (aside / "hf" / "part").write_bytes(b"successor")
        return (1,)


class Woken(Learner):
    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        (aside / "deepspeed").mkdir()
        (aside / "deepspeed" / "part").write_bytes(b"woken")
        raise asyncio.CancelledError


def test_a_coordinator_that_wakes_once_more_mixes_nothing_into_its_successor_s_checkpoint(
    tmp_path: Path,
) -> None:
    place = place_on(tmp_path)
    with pytest.raises(CheckpointWriteFailed, match="No such file"):
        write(place, 1, Interrupted(place))
    assert newest_whole(tmp_path / layout.CHECKPOINTS) is None
    assert write(place, 1, Learner(1024)) == step_folder(tmp_path / layout.CHECKPOINTS, 1)


def append_for_ever(log: LedgerLog, written: list[LogLine]) -> None:
    while True:
        log.append(COMMIT, durable=True)
        written.append(COMMIT)


@pytest.mark.parametrize(
    "free_kib", [0, 4, 100, 192]
)  # at the folder, at the first file, in between, at the manifest
def test_a_full_disk_costs_the_new_checkpoint_and_none_that_was_there(tmp_path: Path, free_kib: int) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        place, learner = place_on(disk), Learner(192 * 1024)
        write(place, 1, learner)
        with full(disk, free_kib), pytest.raises(CheckpointWriteFailed) as failed:
            write(place, 2, learner)
        assert (failed.value.step, failed.value.where) == (2, str(disk / "checkpoints"))
        assert "No space left on device" in str(failed.value)
        assert "GiB are free there" in str(failed.value)
        assert names(disk / "checkpoints") == ["step-000001"]
        assert verify(step_folder(disk / "checkpoints", 1)).group_ids == (2, 3)
        assert verify(write(place, 3, learner)).step == 3  # tried again after the next step, with room


def test_a_read_only_folder_costs_the_new_checkpoint_and_none_that_was_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        place, learner = place_on(disk), Learner(10_000)
        write(place, 1, learner)
        with read_only(disk), pytest.raises(CheckpointWriteFailed, match="Read-only file system"):
            write(place, 2, learner)
        assert newest_whole(disk / "checkpoints") == step_folder(disk / "checkpoints", 1)
        assert verify(write(place, 2, learner)).step == 2


def test_what_a_dead_writer_left_aside_is_removed_before_the_next_checkpoint_needs_its_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        place, learner = place_on(disk), Learner(600 * 1024)
        dead = disk / "checkpoints" / "step-000001.aside-7" / "deepspeed"
        dead.mkdir(parents=True)
        (dead / "part").write_bytes(bytes(600 * 1024))
        assert verify(write(place, 1, learner)).step == 1
        assert names(disk / "checkpoints") == ["step-000001"]


@pytest.mark.parametrize("torn", ["deepspeed/part", "hf/part", layout.LEDGER_STATE])
def test_a_file_torn_after_its_checkpoint_was_sealed_is_named_and_the_one_before_is_whole(
    tmp_path: Path, torn: str
) -> None:
    place, learner = place_on(tmp_path), Learner(10_000)
    before, last = write(place, 1, learner), write(place, 2, learner)
    (last / torn).write_bytes((last / torn).read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=rf"step-000002/{torn} is missing or damaged; remove the folder step-000002"
    ):
        verify(last)
    verify(before)


def test_a_scored_group_that_does_not_fit_is_no_file_and_no_entry(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        kept = spool.write(disk, layout.group_file(1, 1, 1), b"whole")
        with full(disk, free_kib=8), pytest.raises(OSError, match="No space left") as failed:
            spool.write(disk, layout.group_file(2, 1, 1), bytes(100_000))
        assert failed.value.errno == errno.ENOSPC
        assert names(disk) == [kept.name]
        assert spool.read(disk, kept) == b"whole"
        assert spool.write(disk, layout.group_file(2, 1, 1), bytes(100_000)).size_bytes == 100_000


def test_a_commit_that_does_not_fit_into_the_log_is_taken_back_and_the_log_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        log = LedgerLog(disk / "ledger.log")
        written: list[LogLine] = []
        with full(disk, free_kib=8), pytest.raises(OSError, match="No space left"):
            append_for_ever(log, written)
        assert written
        assert read(disk / "ledger.log") == tuple(written)
        assert (disk / "ledger.log").read_bytes().endswith(b"\n")  # nothing of the line that failed
        log.append(COMMIT, durable=True)
        log.close()
        assert LedgerLog(disk / "ledger.log").lines == (*written, COMMIT)


def test_a_driver_on_a_full_disk_still_gives_signs_of_life_and_lets_the_folder_go(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        mine = owner.acquire(disk, now_s=1000.0)
        with full(disk):
            mine.beat(now_s=1100.0)
            assert owner.read(disk) == mine.stamp
            with pytest.raises(UserError, match="last beat is 5 s old"):
                owner.acquire(disk, now_s=1105.0)
            mine.release(now_s=1106.0)
            assert owner.acquire(disk, now_s=1107.0).lineage == 2
        assert sorted(names(disk)) == ["owner.json", "owner.lock"]


def test_a_driver_on_a_read_only_disk_hears_of_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        mine = owner.acquire(disk, now_s=1000.0)
        with read_only(disk), pytest.raises(OSError, match="Read-only"):
            mine.beat(now_s=1100.0)
        mine.beat(now_s=1101.0)
