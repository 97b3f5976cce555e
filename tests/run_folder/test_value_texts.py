"""The texts of the value are kept once by their hash, and what they cost is never the run."""

import logging
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError
from dynalign.run_folder import layout, value_texts

PARTS = {"definition.md": "\ufeffWürde\r\n", "system.txt": ""}


def test_texts_are_read_as_they_were_written_and_written_once(tmp_path: Path) -> None:
    assert value_texts.read(tmp_path, "a1") is None
    value_texts.keep(tmp_path, "a1", PARTS)
    read = value_texts.read(tmp_path, "a1")
    assert read is not None
    assert list(read.items()) == list(PARTS.items())
    file = layout.value_texts_file(tmp_path, "a1")
    before = file.stat()
    value_texts.keep(tmp_path, "a1", {})
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_disk_that_takes_no_texts_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / layout.VALUE_TEXTS).write_text("")
    with caplog.at_level(logging.ERROR):
        value_texts.keep(tmp_path, "a1", PARTS)
    assert "a1.json cannot be written" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "parts": [1]}'])
def test_damaged_texts_are_refused_by_name(tmp_path: Path, content: str) -> None:
    value_texts.keep(tmp_path, "a1", PARTS)
    layout.value_texts_file(tmp_path, "a1").write_text(content)
    with pytest.raises(RecordError, match=r"a1\.json cannot be read"):
        value_texts.read(tmp_path, "a1")
