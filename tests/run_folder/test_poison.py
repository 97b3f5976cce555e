"""`poison.jsonl`: a line for each withheld prompt."""

import json
from pathlib import Path

import pytest

from dynalign.run_folder.poison import PoisonedPrompt, append, read_poison

GROUP = PoisonedPrompt(
    17, "p-17", "train", "Tie a „knot“.\n", ("a", "b"), 9.5, group_id=52, attempt=3, lineage=1
)
ITEM = PoisonedPrompt(0, "p-0", "heldout", "Why?", ("a",), 9.5)


def test_prompts_are_appended_and_read_back(tmp_path: Path) -> None:
    assert read_poison(tmp_path) == []
    append(tmp_path, [GROUP])
    append(tmp_path, [ITEM, GROUP])
    assert read_poison(tmp_path) == [GROUP, ITEM, GROUP]


def test_a_held_out_prompt_has_no_group_in_its_line(tmp_path: Path) -> None:
    append(tmp_path, [ITEM])
    line = json.loads((tmp_path / "poison.jsonl").read_text("utf-8"))
    assert set(line) == {"prompt_index", "prompt_id", "split", "prompt", "workers", "time_s"}


def test_a_file_that_cannot_be_written_is_logged_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "poison.jsonl").mkdir()
    append(tmp_path, [ITEM])
    assert "poison.jsonl cannot be written" in caplog.text
