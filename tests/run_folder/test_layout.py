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


def test_no_other_file_of_the_product_looks_for_files_by_a_part_of_their_name() -> None:
    parts = ("step-", "group-", ".arrow", ".request", ".aside")
    refuse(
        f"{path}:{node.lineno} globs {ast.unparse(node)}: let run_folder/layout.py list these files"
        for path, tree in product().items()
        if path not in ("run_folder/layout.py", "run_folder/durable.py")
        and not path.startswith("benchmarks/")  # they know nothing of what they examine
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("glob", "iglob"))
        and any(part in ast.unparse(node) for part in parts)
    )


def test_checkpoints_groups_and_runs_are_listed_by_their_names_alone(tmp_path: Path) -> None:
    for step in (3, 1_000_000, 20):
        layout.step_folder(tmp_path, step).mkdir()
    layout.aside_folder(tmp_path, 30, 1).mkdir()
    (tmp_path / "step-x").mkdir()
    assert list(layout.checkpoint_folders(tmp_path)) == [1_000_000, 20, 3]
    for name in (layout.group_file(2, 1, 1), layout.group_file(1, 1, 1), "torn.arrow"):
        (tmp_path / name).touch()
    assert [file.name for file in layout.group_files(tmp_path)] == ["group-1-1-1.arrow", "group-2-1-1.arrow"]
    for run in ("b", "a"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / layout.CONFIG).touch()
    (tmp_path / "runs" / "no-run").mkdir()
    assert [folder.name for folder in layout.run_folders(tmp_path / "runs")] == ["a", "b"]


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
