"""The spool: whole or absent, and nothing that does not match its checksum."""

import os
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError
from dynalign.run_folder import durable, layout, spool
from dynalign.run_folder.durable import ASIDE_AGE_S
from dynalign.run_folder.spool import SpoolEntry

NAME = layout.group_file(group_id=12, lineage=2, attempt=3)
PAYLOAD = bytes(range(256)) * 3


def test_a_written_group_reads_back_and_leaves_nothing_aside(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    entry = spool.write(folder, NAME, memoryview(b"abc"))
    assert entry == SpoolEntry("group-12-2-3.arrow", 3, "44bc2cf5ad770999")  # the published xxh64 of "abc"
    assert spool.read(folder, entry) == b"abc"
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_truncated_file_is_refused_by_name_at_any_length(tmp_path: Path) -> None:
    entry = spool.write(tmp_path, NAME, PAYLOAD)
    for size in range(0, len(PAYLOAD), 7):
        (tmp_path / NAME).write_bytes(PAYLOAD[:size])
        with pytest.raises(RecordError, match=NAME):
            spool.read(tmp_path, entry)


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    entry = spool.write(tmp_path, NAME, PAYLOAD)
    for bit in range(0, 8 * len(PAYLOAD), 37):
        damaged = bytearray(PAYLOAD)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / NAME).write_bytes(damaged)
        with pytest.raises(RecordError, match="checksum"):
            spool.read(tmp_path, entry)


def test_an_absent_group_is_a_record_error_and_removing_it_is_none(tmp_path: Path) -> None:
    entry = spool.write(tmp_path, NAME, PAYLOAD)
    spool.remove(tmp_path, [NAME])
    spool.remove(tmp_path, [NAME])
    with pytest.raises(RecordError, match="not in the spool"):
        spool.read(tmp_path, entry)


def test_a_scan_measures_what_is_on_disk_and_sees_only_whole_groups(tmp_path: Path) -> None:
    first = spool.write(tmp_path, NAME, PAYLOAD)
    other = spool.write(tmp_path, layout.group_file(0, 1, 1), b"x")
    (tmp_path / NAME).write_bytes(PAYLOAD[:10])
    (tmp_path / f"{NAME}.host.1.aside").write_bytes(PAYLOAD)
    (tmp_path / "notes.arrow").write_bytes(b"")
    found = spool.scan(tmp_path)
    assert sorted(found) == [other.name, NAME]
    assert found[other.name] == other
    assert found[NAME] != first
    assert spool.scan(tmp_path / "absent") == {}


def test_only_what_a_dead_writer_left_aside_is_removed(tmp_path: Path) -> None:
    spool.write(tmp_path, NAME, PAYLOAD)
    old, young = tmp_path / "group-1-1-1.arrow.host.7.aside", tmp_path / "group-2-1-1.arrow.host.7.aside"
    for path, age_s in ((old, ASIDE_AGE_S + 1), (young, 1.0), (tmp_path / NAME, ASIDE_AGE_S + 1)):
        path.touch()
        os.utime(path, (1e6 - age_s, 1e6 - age_s))
    durable.remove_leftovers(tmp_path, now_s=1e6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, young.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    entry = spool.write(tmp_path, NAME, PAYLOAD)
    with pytest.raises(TypeError):
        spool.write(tmp_path, NAME, "not bytes")  # type: ignore[arg-type]
    assert spool.read(tmp_path, entry) == PAYLOAD
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "name", ["../owner.json", "group-1-1-1.arrow/x", "group-1-1.arrow", "group-1-1-1.arrow.aside", ""]
)
def test_a_name_that_no_group_has_touches_no_file(tmp_path: Path, name: str) -> None:
    entry = SpoolEntry(name, 0, "")
    with pytest.raises(RecordError, match="not the name of a spool file"):
        spool.write(tmp_path, name, b"")
    with pytest.raises(RecordError, match="not the name of a spool file"):
        spool.read(tmp_path, entry)
    with pytest.raises(RecordError, match="not the name of a spool file"):
        spool.remove(tmp_path, [name])


def test_a_file_that_is_removed_during_a_scan_is_left_out(tmp_path: Path) -> None:
    """A name whose file is gone by the time it is read: here a dangling link, which `names` still lists."""
    entry = spool.write(tmp_path, NAME, PAYLOAD)
    (tmp_path / layout.group_file(1, 1, 1)).symlink_to(tmp_path / "removed")
    assert spool.scan(tmp_path) == {NAME: entry}
