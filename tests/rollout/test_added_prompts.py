"""Prompts that come to a run: one file for each set, named by its content."""

from dataclasses import replace
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError
from dynalign.rollout import added_prompts
from dynalign.rollout.added_prompts import AddedPrompts
from dynalign.rollout.prompts import Prompt
from dynalign.run_folder import layout

SET = AddedPrompts(
    "0123456789abcdef", "", "refreshes/refresh-1", (Prompt("a", "Wie geht’s?", "", "train"),), (3, 17)
)


def test_a_set_is_read_as_it_was_written_and_named_by_its_content(tmp_path: Path) -> None:
    content_hash = added_prompts.write(tmp_path, SET)
    assert content_hash == added_prompts.write(tmp_path, SET) == SET.content_hash
    assert added_prompts.read(tmp_path, content_hash) == SET
    assert replace(SET, dropped=(3,)).content_hash != content_hash
    assert added_prompts.read_all(tmp_path, [content_hash, content_hash]) == [*SET.prompts, *SET.prompts]


def test_a_set_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    content = SET.encode().replace(b'"format": 1', b'"format": 7')
    file = layout.added_prompts_file(tmp_path, added_prompts.hash_of(content))
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(RecordError, match="format 7, this version reads 1"):
        added_prompts.read(tmp_path, file.stem)


def test_only_files_that_are_gone_are_put_back(tmp_path: Path) -> None:
    content_hash = added_prompts.write(tmp_path, SET)
    files = added_prompts.contents(tmp_path, [content_hash])
    added_prompts.put_back(tmp_path / "new", files)
    assert added_prompts.read(tmp_path / "new", content_hash) == SET
    file = layout.added_prompts_file(tmp_path, content_hash)
    file.write_bytes(b"mine")
    added_prompts.put_back(tmp_path, files)
    assert file.read_bytes() == b"mine"
