"""The names of the files of a run folder are in `layout.py` only."""

import ast
from pathlib import Path

import pytest

from dynalign.run_folder import layout
from tests.worlds.product import product, refuse

NAMES = {name for name in vars(layout).values() if isinstance(name, str) and "." in name and " " not in name}


def test_no_other_file_of_the_product_spells_a_file_name() -> None:
    assert {"config.yaml", "metrics.jsonl", "manifest.json"} <= NAMES
    refuse(
        f"{path}:{node.lineno} spells {node.value!r}: take it from run_folder/layout.py"
        for path, tree in product().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in NAMES and path != "run_folder/layout.py"
        if not path.startswith("benchmarks/chaos/")  # its audit knows nothing of what it audits
    )


@pytest.mark.parametrize("step", [0, 12, 999_999, 1_000_000])
def test_a_step_is_read_back_from_its_names(tmp_path: Path, step: int) -> None:
    assert layout.step_of(layout.step_folder(tmp_path, step).name) == step
    layout.experience_file(tmp_path, step).touch()
    assert layout.experience_files(tmp_path) == {step: layout.experience_file(tmp_path, step)}


def test_what_is_aside_is_no_checkpoint(tmp_path: Path) -> None:
    layout.aside_folder(tmp_path, 10, 3).mkdir()
    layout.replaced_folder(tmp_path, 10).mkdir()
    layout.step_folder(tmp_path, 10).mkdir()
    aside = layout.aside_folders(tmp_path)
    assert sorted(folder.name for folder in aside) == ["step-000010.aside-0", "step-000010.aside-3"]
    assert [layout.step_of(folder.name) for folder in aside] == [None, None]


def test_a_group_file_differs_from_any_other() -> None:
    assert layout.is_group_file(layout.group_file(12, 2, 3))
    assert not layout.is_group_file("group-12-2-3.arrow.host.7.aside")


def test_a_plain_name_stays_in_its_folder() -> None:
    assert all(layout.is_plain_name(name) for name in ("a", "hf/model.safetensors", "a/b/c.d", "..a", "a.."))
    wrong = ("", "/a", "../a", "a/../../b", "a//b", "./a", "a/", "a/.", "..", "a\\..\\b", "a\0b")
    assert not any(layout.is_plain_name(name) for name in wrong)
