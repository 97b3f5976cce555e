"""Every file that outlives a version says its format: the present one is known to the byte, and another one
is refused by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import xxhash

from dynalign.configs.errors import DynalignError
from dynalign.launch.resume.open_run import RunFolder
from dynalign.learner import experience
from dynalign.learner.batch import decode_groups
from dynalign.learner.learner_state import LearnerState
from dynalign.rollout import arrow_schema
from dynalign.rollout.ledger import log as ledger_log
from dynalign.rollout.ledger.state import unpack
from dynalign.rollout.records import Group
from dynalign.run_folder import checkpoint, owner, value_texts, withheld_groups
from dynalign.run_folder.metrics import read_capability, read_heldout, read_metrics
from tests.worlds.golden_formats import (
    ANSWERED,
    GOLDEN,
    GROUP,
    ITEM,
    LEARNER,
    LINES,
    MANIFEST,
    ROW,
    STAMP,
    STATE,
    TEXTS,
    WITHHELD,
    of_format_1,
    of_format_2,
    written,
)


def read_snapshot(folder: Path) -> Any:
    return unpack(msgpack.unpackb((folder / "ledger.msgpack").read_bytes())).state


READ: dict[str, tuple[Callable[[Path], Any], Any]] = {
    "ledger.log": (lambda folder: ledger_log.read(folder / "ledger.log"), LINES),
    "ledger.msgpack": (read_snapshot, STATE),
    "manifest.json": (checkpoint.read_manifest, MANIFEST),
    "learner.json": (LearnerState.read, LEARNER),
    "owner.json": (owner.read, STAMP),
    "metrics.jsonl": (read_metrics, [ROW]),
    "heldout.jsonl": (read_heldout, [ITEM]),
    "withheld.jsonl": (lambda folder: tuple(withheld_groups.read(folder)), WITHHELD),
    "value-texts.json": (lambda folder: value_texts.read_file(folder / "value-texts.json"), TEXTS),
    "capability.jsonl": (read_capability, {5: [ANSWERED]}),
    "step.arrow": (lambda folder: list(experience.read_step(folder / "step.arrow")), [(GROUP, (0.5, 0.0))]),
}
"""File → its reader, given the folder, and what the golden file says."""


@pytest.mark.parametrize("name", READ)
def test_what_was_written_in_the_present_format_is_read(name: str) -> None:
    read, content = READ[name]
    assert read(GOLDEN) == content


def test_what_is_written_now_is_what_the_format_says() -> None:
    """Where this fails, files that are out there would be read wrongly, or not at all: see
    tests/worlds/golden_formats.py."""
    now = written()
    assert set(now) == set(READ) == {path.name for path in GOLDEN.iterdir() if not path.suffix[1:].isdigit()}
    assert {name for name, each in now.items() if each.exact and each.content != expected(name)} == set()


def expected(name: str) -> bytes:
    """The content of a golden file, without the statistics of the scores that earlier versions wrote."""
    content = (GOLDEN / name).read_bytes()
    if name == "ledger.log":
        return b"".join(map(without_scores, content.splitlines()))
    if name == "ledger.msgpack":
        snapshot = msgpack.unpackb(content)
        for row in snapshot["scored"]:
            assert (len(row), row[9:11]) == (12, [2.5, 0.75])
            del row[9:11]
        return bytes(msgpack.packb(snapshot))
    return content


def without_scores(line: bytes) -> bytes:
    """A line of the ledger's log with its checksum, which counts over what is left."""
    body = json.loads(line)
    del body["checksum"]
    if "group" in body:
        assert (body["group"].pop("score_mean"), body["group"].pop("score_std")) == (2.5, 0.75)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f'{text[:-1]},"checksum":"{xxhash.xxh32_hexdigest(text.encode())}"}}\n'.encode()


def test_the_arrow_schema_is_the_one_that_its_format_number_names() -> None:
    """Arrow's library lays bytes out as it likes; names, types and their order are ours."""
    golden = arrow_schema.decode((GOLDEN / "step.arrow").read_bytes(), "golden")
    now = arrow_schema.decode(written()["step.arrow"].content, "now")
    assert golden[0].schema.equals(arrow_schema.SCHEMA, check_metadata=True)
    assert [batch.to_pylist() for batch in golden] == [batch.to_pylist() for batch in now]


@pytest.mark.parametrize(
    ("name", "group"), [("step.arrow.1", of_format_1()), ("step.arrow.2", of_format_2())]
)
def test_records_of_the_formats_before_are_read_without_what_they_lacked(
    tmp_path: Path, name: str, group: Group
) -> None:
    file = GOLDEN / name
    arrow_schema.check_schema(file)
    assert list(experience.read_step(file)) == [(group, (0.5, 0.0))]
    decoded = arrow_schema.decode(file.read_bytes(), file.name)
    assert [batch.schema for batch in decoded] == [arrow_schema.SCHEMA]
    (tmp_path / "again.arrow").write_bytes(arrow_schema.encode(decoded))
    assert list(experience.read_step(tmp_path / "again.arrow")) == [(group, (0.5, 0.0))]
    decode_groups([file.read_bytes()], [file.name])  # the learner reads them too


IN_CHECKPOINT = ("deepspeed/learner.json", "ledger.msgpack")


def with_format(name: str, content: bytes, number: int | None) -> bytes:
    """The file with another format number in its first record, or without one."""
    if name == "step.arrow":
        return content.replace(
            b"dynalign.experience/3", b"dynalign.experience/7" if number else b"dynalign_experience_3"
        )
    if name == "ledger.msgpack":
        first, rest = msgpack.unpackb(content), b""
    else:
        line, _, rest = content.partition(b"\n") if name.endswith(("log", "jsonl")) else (content, b"", b"")
        first = json.loads(line)
    del first["format"]
    first |= {} if number is None else {"format": number}
    return msgpack.packb(first) if name == "ledger.msgpack" else json.dumps(first).encode() + b"\n" + rest


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("number", [7, None])
def test_a_file_of_another_format_or_of_none_is_refused_by_name_and_left_as_it_is(
    tmp_path: Path, name: str, number: int | None
) -> None:
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    changed = with_format(name, (GOLDEN / name).read_bytes(), number)
    assert changed != (GOLDEN / name).read_bytes()
    (tmp_path / name).write_bytes(changed)
    read, content = READ[name]
    if number is None and name in ("metrics.jsonl", "heldout.jsonl"):
        # the first lines that were ever written had no number, and this content
        assert read(tmp_path) == content
        return
    with pytest.raises(DynalignError) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)
    assert (name if name != "ledger.msgpack" else "ledger snapshot") in str(refused.value)
    assert re.search("format 7|experience/7" if number else "format|experience", str(refused.value))
    assert (tmp_path / name).read_bytes() == changed


READ_LATE = (
    "metrics.jsonl",
    "heldout.jsonl",
    "capability.jsonl",
    "spool/group-7-1-3.arrow",
    *(f"checkpoints/step-000005/{name}" for name in IN_CHECKPOINT),
)


def golden_name(file: str) -> str:
    """A group in the spool has the form of a step's experience."""
    return "step.arrow" if file.endswith(".arrow") else Path(file).name


@pytest.mark.parametrize("file", READ_LATE)
def test_a_run_says_before_it_starts_which_of_its_files_another_version_wrote(
    tmp_path: Path, file: str
) -> None:
    for each in READ_LATE:
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOLDEN / golden_name(each), tmp_path / each)
    shutil.copyfile(GOLDEN / "manifest.json", tmp_path / "checkpoints" / "step-000005" / "manifest.json")
    RunFolder(tmp_path).check_formats()
    name = golden_name(file)
    (tmp_path / file).write_bytes(with_format(name, (GOLDEN / name).read_bytes(), 7))
    with pytest.raises(DynalignError, match="format 7|experience/7"):
        RunFolder(tmp_path).check_formats()


def test_a_torn_group_in_the_spool_is_no_reason_to_refuse_a_run(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "torn.arrow").write_bytes((GOLDEN / "step.arrow").read_bytes()[:100])
    (tmp_path / "spool" / "empty.arrow").write_bytes(b"")
    RunFolder(tmp_path).check_formats()
