"""What the README says is so: it quotes the loop, links to every room, and names commands that exist."""

import ast
import re
from collections import Counter

import yaml

from dynalign.configs.load import shipped_names
from tests.worlds.product import ROOT, project_files, refuse, rooms

README = (ROOT / "README.md").read_text()
README_LINES = 130


def test_the_loop_is_quoted_whole_and_word_for_word() -> None:
    source = (ROOT / "actors" / "coordinator" / "coordinator.py").read_text()
    (train,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "train"
    )
    lines = source.splitlines()[train.lineno - 1 : train.end_lineno]
    assert "\n".join(line.removeprefix("    ") for line in lines) in README


def test_the_readme_takes_a_minute() -> None:
    assert len(README.splitlines()) <= README_LINES, "move what a first reader can do without to docs/"


def links(text: str) -> list[str]:
    """Where the links and pictures of a page lead, in this checkout: without the part behind `#`."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", text)
    return [target for pair in found for target in pair if target and ":" not in target]


def test_the_readme_links_to_the_readme_of_every_room_once() -> None:
    named = Counter(links(README))
    refuse(
        f"README.md links to {room}/README.md {named[f'{room}/README.md']} times: give the room one line"
        for room in rooms()
        if named[f"{room}/README.md"] != 1
    )


def test_every_link_of_a_page_leads_to_a_file() -> None:
    refuse(
        f"{page} links to {target}, which is not there"
        for page in project_files()
        if page.endswith(".md")
        for target in links((ROOT / page).read_text())
        if not (ROOT / page).parent.joinpath(target).exists()
    )


def test_links_are_seen_and_addresses_and_headings_are_none() -> None:
    text = '[a](docs/a.md#b) [b](#c) ![c](c.png) [d](https://example.org/d) <img src="e.svg">'
    assert links(text) == ["docs/a.md", "c.png", "e.svg"]


def test_every_shipped_run_is_mentioned() -> None:
    assert [name for name in shipped_names() if name != "paper" and name not in README] == []


def test_the_commands_that_the_readme_gives_exist() -> None:
    from dynalign.launch.cli import dynalign

    named = set(re.findall(r"`dynalign ([a-z]+)", README))
    assert named <= set(dynalign.commands), f"no such command: {named - set(dynalign.commands)}"
    assert yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())["steps"] >= 4
