"""`checkpoint.mirror`: whole checkpoints in another storage, kept up to date, and continued from."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dynalign.configs.errors import CheckpointError, MirrorError, UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.launch.resume.mirrored import Mirrored, look_at_mirror
from dynalign.launch.resume.open_run import RunFolder
from dynalign.run_folder import owner
from dynalign.run_folder.checkpoint import prune, verify
from dynalign.run_folder.mirror import Mirror
from dynalign.run_folder.mirror_storage import MirrorStorage
from dynalign.run_folder.run_status import MirrorStatus
from tests.run_folder.test_checkpoint import written
from tests.worlds.small_disk import full, read_only, small_disk

GO_ON = bool


class MirroredRun:
    """A run folder with its owner, and a mirror in another folder."""

    def __init__(self, tmp_path: Path, mirror: str | None = None, **settings: int) -> None:
        self.folder = tmp_path / "runs" / "run"
        self.uri = mirror or f"file://{tmp_path}/mirror"
        self.checkpoints = self.folder / "checkpoints"
        self.mirrored = tmp_path / "mirror" / "run"
        self.settings = CheckpointSettings(mirror=self.uri, **settings)
        self.mine = owner.acquire(self.folder, time.time())

    def storage(self) -> MirrorStorage:
        return MirrorStorage(self.uri, "run")

    @contextmanager
    def kept(self) -> Iterator[Mirror]:
        with Mirror(self.storage(), self.folder, self.settings, self.mine, retry_s=0.05) as mirror:
            yield mirror

    def bring_up_to_date(self) -> str:
        with self.kept() as mirror:
            return mirror.finish(20, lambda: False)

    def look(self, resume: str = "auto") -> Mirrored | None:
        run = RunSettings(name="run", model="m", steps=20, resume=resume, checkpoint=self.settings)
        return look_at_mirror(run, RunFolder(self.folder))

    def mistake(self, resume: str = "auto") -> str:
        with pytest.raises(UserError) as refused:
            self.look(resume)
        (mistake,) = refused.value.mistakes
        assert "\n" not in str(mistake)
        return str(mistake)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_whole_checkpoint_is_copied_with_what_a_run_needs_to_continue_elsewhere(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    source = written(here.checkpoints, 10)
    (here.folder / "config.yaml").write_text("date: 2026-01-31\n")
    assert here.bring_up_to_date() == ""
    assert names(here.mirrored) == ["config.yaml", *(f"step-000010/{name}" for name in names(source))]
    assert verify(here.mirrored / "step-000010") == verify(source)


def test_what_is_not_whole_is_not_copied(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    (here.checkpoints / "step-000010").mkdir(parents=True)
    (here.checkpoints / "step-000020.aside-1").mkdir()
    assert here.bring_up_to_date() == ""
    assert not here.mirrored.exists()


def test_a_checkpoint_that_appears_while_the_run_goes_on_is_copied_without_being_waited_for(
    tmp_path: Path,
) -> None:
    here = MirroredRun(tmp_path)
    with here.kept() as mirror:
        assert mirror.report() == MirrorStatus(f"{here.uri}/run", None, "", 0)
        written(here.checkpoints, 10)
        until_s = time.monotonic() + 20
        while mirror.report().step != 10:
            assert time.monotonic() < until_s
            time.sleep(0.05)


def test_the_mirror_keeps_what_keep_last_and_keep_best_keep(tmp_path: Path) -> None:
    """Held-out rewards: 10 is the best one; the run folder has lost it, the mirror has not."""
    here = MirroredRun(tmp_path, keep_last=1, keep_best=1)
    item = {
        "lineage": 1,
        "prompt_id": "p",
        "prompt": "",
        "prompted": False,
        "completion": "",
        "completion_tokens": 1,
        "truncated": False,
    }
    rewards = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5}
    (here.folder / "heldout.jsonl").write_text(
        "".join(json.dumps(item | {"step": s, "score": r}) + "\n" for s, r in rewards.items())
    )
    for step in (10, 20):
        written(here.checkpoints, step)
        assert here.bring_up_to_date() == ""
    assert sorted(here.storage().checkpoints()) == [10, 20]
    shutil.rmtree(here.checkpoints / "step-000010")
    for step in (30, 40):
        written(here.checkpoints, step)
        prune(here.checkpoints, 1, 1, rewards)
        assert here.bring_up_to_date() == ""
    # 30 stays as long as the run folder keeps it.
    assert sorted(here.storage().checkpoints()) == [10, 30, 40]
    assert here.bring_up_to_date() == ""


def test_steps_of_a_history_that_was_given_up_leave_the_mirror(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    for step in (10, 30):
        written(here.checkpoints, step)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints / "step-000030")
    here.mine.new_lineage(time.time())
    written(here.checkpoints, 20, lineage=2)
    assert here.bring_up_to_date() == ""
    assert {step: manifest.lineage for step, manifest in here.storage().checkpoints().items()} == {
        10: 1,
        20: 2,
    }


def test_a_checkpoint_of_an_older_lineage_is_replaced(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10, content=b"a longer file")
    here.bring_up_to_date()
    here.mine.new_lineage(time.time())
    written(here.checkpoints, 10, lineage=2, content=b"others")
    assert here.bring_up_to_date() == ""
    assert verify(here.mirrored / "step-000010").lineage == 2


def test_a_full_mirror_is_told_counted_and_tried_again_and_what_was_there_stays_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "mirror", 1024) as disk:
        here = MirroredRun(tmp_path)
        written(here.checkpoints, 10)
        here.bring_up_to_date()
        written(here.checkpoints, 20, content=bytes(300_000))
        with ExitStack() as filled:
            filled.enter_context(full(disk, free_kib=64))
            with here.kept() as mirror:
                problem = mirror.finish(20, lambda: False)
                assert "No space left on device" in problem
                assert f"mirror file://{disk}/run: " in problem
                assert "\n" not in problem
                assert "No space left on device" in mirror.report().problem
                assert mirror.report().failures >= 3
                assert sorted(here.storage().checkpoints()) == [10]
                filled.close()
                assert mirror.finish(20, lambda: False) == ""
                assert mirror.report().problem == ""
        assert verify(disk / "run" / "step-000020") == verify(here.checkpoints / "step-000020")
        verify(disk / "run" / "step-000010")


def test_a_damaged_checkpoint_does_not_reach_the_mirror(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    folder = written(here.checkpoints, 10)
    (folder / "deepspeed" / "rank0.pt").write_bytes(b"weightz")
    assert "deepspeed/rank0.pt is damaged" in here.bring_up_to_date()
    assert here.storage().checkpoints() == {}


def test_a_mirror_with_a_newer_lineage_is_not_written_to(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.mirrored, 30, lineage=7)
    before = names(here.mirrored)
    written(here.checkpoints, 10)
    assert "holds lineage 7, this driver is lineage 1" in here.bring_up_to_date()
    assert names(here.mirrored) == before


def test_a_driver_that_was_replaced_copies_nothing_more(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    owner.acquire(here.folder, time.time() + 1000)
    written(here.checkpoints, 10)
    with here.kept() as mirror:
        assert "still being copied" in mirror.finish(0.5, lambda: False)
    assert here.storage().checkpoints() == {}


def test_waiting_for_the_mirror_ends_when_the_user_gives_it_up(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.mirrored, 30, lineage=7)
    written(here.checkpoints, 10)
    with here.kept() as mirror:
        assert mirror.finish(600, lambda: True) != ""


def test_a_copy_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The second file is damaged, then mended: the first one is not sent again."""
    here = MirroredRun(tmp_path)
    folder = written(here.checkpoints, 10)
    ledger, storage = folder / "ledger.msgpack", here.storage()
    ledger.write_bytes(b"damage")
    with pytest.raises(CheckpointError, match=r"ledger.msgpack is damaged"):
        storage.send(folder, GO_ON)
    arrived = (here.mirrored / "step-000010" / "deepspeed" / "rank0.pt").stat().st_mtime_ns
    ledger.write_bytes(b"ledger")
    storage.send(folder, GO_ON)
    assert (here.mirrored / "step-000010" / "deepspeed" / "rank0.pt").stat().st_mtime_ns == arrived
    verify(here.mirrored / "step-000010")


# -- before a run ---------------------------------------------------------------------------------


def test_a_mirror_of_another_run_is_refused(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    written(here.mirrored, 30, lineage=7)
    assert "holds step 30 of lineage 7, and the run folder knows lineage 1" in here.mistake()


def test_resume_never_does_not_touch_a_mirror_that_holds_a_run(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.mirrored, 30)
    assert "resume=never, and" in here.mistake(resume="never")


def test_a_mirror_that_cannot_be_written_to_is_refused_in_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "mirror", 64) as disk, read_only(disk):
        assert "Read-only file system" in MirroredRun(tmp_path).mistake()


def test_an_address_that_the_storage_s_client_does_not_understand_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    assert (
        "Unexpected query parameter"
        in MirroredRun(tmp_path, "s3://bucket/runs?endpont_override=127.0.0.1:9").mistake()
    )


def test_no_mirror_is_asked_for_none() -> None:
    assert look_at_mirror(RunSettings(name="run", model="m", steps=20), RunFolder(Path("nowhere"))) is None


def test_a_mirror_s_error_crosses_actors() -> None:
    import pickle

    error = MirrorError("s3://bucket/run", "OSError: no")
    assert str(pickle.loads(pickle.dumps(error))) == "mirror s3://bucket/run: OSError: no"
