"""The README tells the truth: it quotes the loop as it is, and its tree names every file."""

import ast
import re
from collections import Counter
from pathlib import Path

import yaml

from dynalign.configs.load import shipped_names
from tests.worlds.product import product, refuse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_loop_is_quoted_whole_and_word_for_word() -> None:
    source = (ROOT / "actors" / "coordinator.py").read_text()
    (train,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "train"
    )
    lines = source.splitlines()[train.lineno - 1 : train.end_lineno]
    assert "\n".join(line.removeprefix("    ") for line in lines) in README


def tree() -> list[str]:
    """The paths of all Python files that the README's tree names, in its order."""
    drawn = re.search(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    assert drawn is not None
    room, paths = "", []
    for line in drawn[1].splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            room = name
        elif name.endswith(".py"):
            paths.append(room + name)
    return paths


def test_the_tree_names_every_file_of_the_product_once_in_its_room_and_no_other() -> None:
    files, named = {path for path in product() if not path.endswith("__init__.py")}, Counter(tree())
    refuse(
        [f"the README's tree does not name {path}" for path in files - named.keys()]
        + [f"the README's tree names {path}, which is not there" for path in named.keys() - files]
        + [f"the README's tree names {path} {times} times" for path, times in named.items() if times > 1]
    )


def test_every_shipped_run_is_mentioned() -> None:
    assert [name for name in shipped_names() if name != "paper" and name not in README] == []


def test_the_commands_that_the_readme_gives_exist() -> None:
    from dynalign.launch.cli import dynalign

    named = set(re.findall(r"`dynalign ([a-z]+)", README))
    assert named <= set(dynalign.commands), f"no such command: {named - set(dynalign.commands)}"
    assert yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())["steps"] >= 4
