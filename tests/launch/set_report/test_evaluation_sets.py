import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from dynalign.configs.errors import Mistake
from dynalign.launch.set_report.evaluation_sets import BUILTIN_HELDOUT, hub_cache, present_sets, texts_of


def test_without_downloads_the_shipped_held_out_prompts_are_there(tmp_path: Path) -> None:
    found = present_sets(tmp_path)
    assert list(found) == [BUILTIN_HELDOUT]
    assert len(found[BUILTIN_HELDOUT]) >= 40


def test_sets_in_the_cache_are_found_by_their_columns_and_without_their_training_split(
    tmp_path: Path,
) -> None:
    ifeval = tmp_path / "datasets--google--IFEval" / "snapshots" / "abc"
    gsm8k = tmp_path / "datasets--openai--gsm8k" / "snapshots" / "def" / "main"
    ifeval.mkdir(parents=True)
    gsm8k.mkdir(parents=True)
    (ifeval / "ifeval_input_data.jsonl").write_text(
        json.dumps({"key": 1, "prompt": "Write it."}), encoding="utf-8"
    )
    (ifeval / "README.md").write_text("words", encoding="utf-8")
    for split, text in (("train", "a"), ("test", "b")):
        table = pa.table({"question": [text, text], "answer": ["1", "1"]})
        pyarrow.parquet.write_table(table, gsm8k / f"{split}-00000-of-00001.parquet")
    found = present_sets(tmp_path)
    assert found["IFEval"] == ["Write it."]
    assert found["GSM8K"] == ["b"]
    assert set(found) == {BUILTIN_HELDOUT, "IFEval", "GSM8K"}


def test_a_damaged_set_in_the_cache_is_not_present(tmp_path: Path) -> None:
    folder = tmp_path / "datasets--google--IFEval" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "data.parquet").write_bytes(b"no table")
    assert list(present_sets(tmp_path)) == [BUILTIN_HELDOUT]


def test_a_named_set_without_a_text_is_a_mistake(tmp_path: Path) -> None:
    mistakes: list[Mistake] = []
    path = tmp_path / "quiz.csv"
    path.write_text("number,answer\n1,2\n", encoding="utf-8")
    assert texts_of(str(path), mistakes) == []
    assert len(mistakes) == 1


def test_the_cache_is_where_the_hub_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert hub_cache() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub_cache() == tmp_path / "cache"
