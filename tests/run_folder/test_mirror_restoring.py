"""Restoring a run folder from its mirror: what is lost comes back, and nothing lands outside the folder."""

import json
import shutil
from pathlib import Path

import pytest

from dynalign.configs.errors import CheckpointError, RunFailed
from dynalign.configs.schema import RunSettings
from dynalign.launch.resume.mirrored import restore
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import fixed_settings, newest_whole, verify
from tests.run_folder.test_checkpoint import written
from tests.run_folder.test_mirror import MirroredRun, names


def test_a_run_whose_folder_is_lost_continues_from_the_mirror(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    for step in (10, 20):
        written(here.checkpoints, step)
    (here.folder / "metrics.jsonl").write_text("{}\n")
    here.bring_up_to_date()
    shutil.rmtree(here.folder)
    mirrored = here.look()
    assert mirrored is not None
    assert mirrored.lost is not None
    assert (mirrored.lost.step, mirrored.lost.settings) == (
        20,
        fixed_settings(RunSettings(name="run", model="m", steps=20), "abc"),
    )
    restore(mirrored, here.folder, lambda: False)
    newest = newest_whole(here.checkpoints)
    assert newest is not None
    assert verify(newest) == mirrored.lost
    assert names(here.folder) == [
        *(f"checkpoints/step-000020/{name}" for name in names(newest)),
        "metrics.jsonl",
    ]
    assert (here.folder / "metrics.jsonl").read_text() == "{}\n"


def test_a_checkpoint_that_was_removed_for_its_damage_comes_back_from_the_mirror(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    for step in (10, 20):
        written(here.checkpoints, step)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints / "step-000020")
    mirrored = here.look()
    assert mirrored is not None
    assert mirrored.lost is not None
    assert mirrored.lost.step == 20


def test_a_run_folder_that_is_as_new_as_its_mirror_is_continued_as_it_is(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    written(here.checkpoints, 20)
    mirrored = here.look()
    assert mirrored is not None
    assert mirrored.lost is None


@pytest.mark.parametrize("damaged", ["deepspeed/rank0.pt", layout.MANIFEST])
def test_damage_in_the_mirror_is_refused_by_name_and_leaves_no_checkpoint(
    tmp_path: Path, damaged: str
) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints)
    (here.mirrored / "step-000010" / damaged).write_bytes(b"weightz")
    if damaged == layout.MANIFEST:
        assert "step-000010/manifest.json cannot be read" in here.mistake()
        return
    mirrored = here.look()
    assert mirrored is not None
    with pytest.raises(CheckpointError, match="rank0.pt is missing or damaged"):
        restore(mirrored, here.folder, lambda: False)
    assert newest_whole(here.checkpoints) is None


def test_an_interrupted_restoration_leaves_no_checkpoint_and_can_be_begun_again(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints)
    mirrored = here.look()
    assert mirrored is not None
    with pytest.raises(RunFailed, match="interrupted while it copied a checkpoint"):
        restore(mirrored, here.folder, lambda: True)
    assert newest_whole(here.checkpoints) is None
    restore(mirrored, here.folder, lambda: False)
    assert newest_whole(here.checkpoints) is not None


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "a/../../evil", "manifest.json", "hf//a", ""])
def test_a_manifest_that_names_a_file_outside_its_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints)
    file = here.mirrored / "step-000010" / layout.MANIFEST
    manifest = json.loads(file.read_text())
    manifest["files"][name] = {"size_bytes": 1, "checksum": "0"}
    file.write_text(json.dumps(manifest))
    assert f"step-000010/manifest.json cannot be read (ValueError({name!r}".replace("'", "") in (
        here.mistake().replace("'", "").replace('"', "")
    )
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("place", [{"lineage": "1/../../evil"}, {"lineage": -1}, {"step": "10"}])
def test_a_manifest_whose_numbers_are_none_is_refused(tmp_path: Path, place: dict[str, object]) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    shutil.rmtree(here.checkpoints)
    file = here.mirrored / "step-000010" / layout.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | place))
    assert "lineage and step must be numbers" in here.mistake()


def test_what_a_removal_has_left_does_not_keep_a_checkpoint_from_being_restored_again(tmp_path: Path) -> None:
    here = MirroredRun(tmp_path)
    written(here.checkpoints, 10)
    here.bring_up_to_date()
    step = here.checkpoints / "step-000010"
    for _ in range(3):
        (step / layout.MANIFEST).unlink()  # half removed
        assert newest_whole(here.checkpoints) is None
        assert here.storage().restore(10, here.folder, lambda: None) == step
        assert newest_whole(here.checkpoints) == step
