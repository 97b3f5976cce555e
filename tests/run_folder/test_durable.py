"""Durable writing: a reader sees the old content or the new one, and a failed write leaves nothing behind."""

import ast
import threading
from pathlib import Path

import pytest

from dynalign.run_folder import durable
from tests.worlds.product import product, refuse
from tests.worlds.small_disk import full, small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("content", ["tä", b"\x00\xff", memoryview(b"abc"), "", b""])
def test_content_of_each_kind_is_written_and_leaves_nothing_aside(
    tmp_path: Path, content: bytes | memoryview | str
) -> None:
    durable.write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (
        content.encode() if isinstance(content, str) else bytes(content)
    )
    assert names(tmp_path) == ["file"]


def test_the_folder_of_a_file_is_made(tmp_path: Path) -> None:
    durable.write(tmp_path / "a" / "b" / "file", "x")
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = {bytes([digit]) * 100_000 for digit in b"01"}
    durable.write(file, b"0" * 100_000)
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in sorted(contents) * 50:
        durable.write(file, content)
    ended.set()
    reader.join(10.0)
    assert seen <= contents


def test_a_write_that_fails_leaves_the_old_content_and_nothing_aside(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "old").touch()
    with pytest.raises(OSError, match="file"):
        durable.write(tmp_path / "file", "new")
    assert names(tmp_path) == ["file", "file/old"]


def test_on_a_full_disk_the_old_content_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        durable.write(disk / "file", "old")
        with full(disk), pytest.raises(OSError, match="No space left"):
            durable.write(disk / "file", bytes(100_000))
        assert (disk / "file").read_text() == "old"
        assert [name for name in names(disk) if name.endswith("aside")] == []


def test_a_folder_gets_its_final_name_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "aside" / "deep").mkdir(parents=True)
    (tmp_path / "aside" / "deep" / "file").write_text("new")
    durable.publish(tmp_path / "aside", tmp_path / "final", tmp_path / "replaced")
    assert names(tmp_path) == ["final", "final/deep", "final/deep/file"]


def test_a_folder_that_has_the_final_name_is_kept_as_replaced(tmp_path: Path) -> None:
    for name in ("aside", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    durable.publish(tmp_path / "aside", tmp_path / "final", tmp_path / "replaced")
    assert names(tmp_path) == ["final", "final/aside", "replaced", "replaced/final"]


def test_a_folder_can_be_replaced_again_although_the_last_one_that_was_replaced_is_still_there(
    tmp_path: Path,
) -> None:
    for content in ("first", "second", "third"):
        (tmp_path / "aside").mkdir()
        (tmp_path / "aside" / "file").write_text(content)
        durable.publish(tmp_path / "aside", tmp_path / "folder", tmp_path / "replaced")
    assert (tmp_path / "folder" / "file").read_text() == "third"
    assert (tmp_path / "replaced" / "file").read_text() == "second"


def test_leftovers_of_a_folder_that_is_absent_are_none(tmp_path: Path) -> None:
    durable.remove_leftovers(tmp_path / "absent", now_s=1e9)


def test_a_folder_that_must_be_new_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "file").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").touch()
    with pytest.raises(OSError, match="there"):
        durable.publish(tmp_path / "aside", tmp_path / "there")
    durable.publish(tmp_path / "aside", tmp_path / "new")
    assert names(tmp_path) == ["new", "new/file", "there", "there/old"]


def test_no_other_file_of_the_product_gives_a_final_name() -> None:
    refuse(
        f"{path}:{node.lineno} renames without a sync: use run_folder/durable.py"
        for path, tree in product().items()
        # learner/export.py names files in a folder that is published later
        if path not in ("run_folder/durable.py", "learner/export.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (node.attr == "rename" or ast.unparse(node) in ("os.replace", "os.renames", "shutil.move"))
    )
