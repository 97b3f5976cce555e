"""What a run is trained with is known by its content: a change is seen, another place is not one."""

import shutil
from pathlib import Path

import pytest

from dynalign.run_folder.content import content_mistakes, model_hashes, values_hashes


def model(folder: Path) -> Path:
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    return folder


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("config.json", "configuration"),
        ("generation_config.json", "configuration"),
        ("tokenizer.json", "tokenizer"),
        ("chat_template.jinja", "chat template"),
        ("additional_chat_templates/rag.jinja", "chat template"),
        ("model.safetensors", "weights"),
    ],
)
def test_a_changed_file_changes_the_hash_of_its_part_alone(tmp_path: Path, file: str, part: str) -> None:
    folder = model(tmp_path / "model")
    before = model_hashes(folder)
    (folder / file).write_text("another")
    after = model_hashes(folder)
    assert {name for name in before if before[name] != after[name]} == {f"model: {part}"}
    (mistake,) = content_mistakes(before, after, {"model": "m"})
    assert (mistake.place, mistake.value) == ("model", "m")
    assert f"other content there ({part})" in mistake.rule


def test_a_copy_a_link_and_a_readme_change_nothing(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    before = model_hashes(folder)
    (folder / "README.md").write_text("read")
    (tmp_path / "link").symlink_to(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert (
        model_hashes(folder) == model_hashes(tmp_path / "link") == model_hashes(tmp_path / "copy") == before
    )


def test_samples_of_a_large_file_show_other_values_and_another_size(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    file = folder / "model.safetensors"
    seen = []
    for value, size_bytes in ((0, 40 << 20), (1, 40 << 20), (0, (40 << 20) + 1)):
        file.write_bytes(bytes([value]) * size_bytes)
        seen.append(model_hashes(folder)["model: weights"])
    assert len(set(seen)) == 3
    with file.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    assert model_hashes(folder)["model: weights"] not in seen


def test_texts_are_compared_by_their_hashes_and_what_only_one_side_has_is_not() -> None:
    made_with = values_hashes("d", "r")
    assert content_mistakes(made_with, values_hashes("d", "r"), {}) == []
    assert content_mistakes(made_with, values_hashes("d", None), {}) == []
    assert content_mistakes({}, made_with, {}) == []
    (mistake,) = content_mistakes(made_with, values_hashes("d", "s"), {"judge.values": "V"})
    assert (mistake.place, mistake.value) == ("judge.values", "V")
    assert "rubric" in mistake.rule
