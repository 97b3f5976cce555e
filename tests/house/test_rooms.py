"""Each room and each wing has a README that names its files, and says what the room may import.

Each violation is one sentence that says what to do.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.house.test_layers import MAY_IMPORT
from tests.worlds.product import ROOT, packages, refuse

ROW = re.compile(r"\| \[?`([^`]+)`(?:\]\([^)]*\))? \|(.*)\|")
"""A row of the file table: a name, perhaps as a link, and a clause."""

OTHER_TESTS = ("chaos", "golden", "house", "k8s", "whole_runs", "worlds")
"""Folders of tests/ that mirror no room."""


def folders() -> list[str]:
    """Every room and every wing, by its path from the root."""
    return [name.removeprefix("dynalign.").replace(".", "/") for name in packages() if "." in name]


def may_import(text: str) -> list[str] | None:
    """The names in the line `May import: …`, which may go on over several lines; None without such a line."""
    found = re.search(r"^May import:(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return None if found is None else re.findall(r"`([^`]+)`", found[1])


def rows(text: str) -> list[tuple[str, str]]:
    """(name, clause) of each row of the file table."""
    return [(found[1], found[2].strip()) for found in map(ROW.fullmatch, text.splitlines()) if found]


def import_mistakes(folder: str, text: str, wings: Sequence[str], allowed: Sequence[str]) -> Iterator[str]:
    """wings: those of the room, which a README of the room and of its wings may name besides the rooms."""
    room, named = folder.split("/")[0], may_import(text)
    if named is None:
        yield f"{folder}/README.md has no line `May import: …`: write what MAY_IMPORT has for {room}"
        return
    own = {room, *wings, *(f"{room}/{wing}" for wing in wings)} - {*allowed}  # actors has a wing learner too
    besides = {name.rstrip("/") for name in named} - own
    for name in sorted(set(allowed) - besides):
        yield f"{folder}/README.md does not name {name} in `May import`, where MAY_IMPORT has it: add it"
    for name in sorted(besides - set(allowed)):
        yield f"{folder}/README.md names {name} in `May import`, which MAY_IMPORT does not have: take it out"


def table_mistakes(folder: str, text: str, files: Sequence[str], wings: Sequence[str]) -> Iterator[str]:
    """files: of the folder and below, by path from it. wings: the packages in it."""
    wanted = {name for name in files if name.endswith(".py") and "/" not in name} - {"__init__.py"}
    wanted |= {f"{wing}/" for wing in wings}
    named = Counter(name for name, _ in rows(text))
    there = {*files, *(f"{path.parent}/" for path in map(Path, files))}
    for name in sorted(wanted - named.keys()):
        yield f"{folder}/README.md has no row for `{name}`: add one, with a clause that says what it is"
    for name, times in named.items():
        if name not in wanted and not any(fnmatch(path, name) for path in there):
            yield f"{folder}/README.md has a row for `{name}`, which is not there: take it out"
        if times > 1:
            yield f"{folder}/README.md has {times} rows for `{name}`: keep one"
    for name, clause in rows(text):
        if not clause:
            yield f"{folder}/README.md does not say what `{name}` is: add a clause"


def mistakes(
    folder: str, text: str, files: Sequence[str], wings: Sequence[str], allowed: Sequence[str]
) -> list[str]:
    """All that is wrong with the README of a room or wing. wings: those of the room."""
    found = [*import_mistakes(folder, text, wings, allowed)]
    found += table_mistakes(folder, text, files, wings if "/" not in folder else ())
    if text.partition("\n")[0] != f"# {folder}":
        found.append(f"{folder}/README.md does not begin with `# {folder}`: begin with the folder's name")
    return found


def of_a_folder(folder: str) -> list[str]:
    readme, room = ROOT / folder / "README.md", folder.split("/")[0]
    if not readme.is_file():
        return [f"{folder}/ has no README.md: write what lives there, what it may import, and its files"]
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = [path.relative_to(ROOT / folder).as_posix() for path in paths]
    wings = [each.partition("/")[2] for each in folders() if each.startswith(f"{room}/")]
    return mistakes(folder, readme.read_text(), files, wings, MAY_IMPORT[room])


def test_every_room_and_wing_has_a_readme_that_names_its_files_and_what_it_may_import() -> None:
    refuse(mistake for folder in folders() for mistake in of_a_folder(folder))


def test_every_folder_of_tests_mirrors_a_room_or_wing() -> None:
    paths = [path.parent.relative_to(ROOT / "tests").as_posix() for path in ROOT.glob("tests/*/**/*.py")]
    refuse(
        f"tests/{path} mirrors no room: move its tests to the folder of what they are about"
        for path in set(paths)
        if path not in folders() and path.split("/")[0] not in OTHER_TESTS
    )


def test_the_readme_of_k8s_names_every_folder() -> None:
    text = (ROOT / "k8s" / "README.md").read_text()
    there = {f"{path.name}/" for path in (ROOT / "k8s").iterdir() if path.is_dir()}
    assert {name for name, _ in rows(text)} >= there


GOOD = """# engine

What generates. Judges live in `judges/`.

May import: `configs`, `run_folder`,
`endpoint`.

| file | what it is |
|---|---|
| `base.py` | the interface of an engine |
| [`weights/`](weights/README.md) | new weights on their way in |
| `data/*.jsonl` | prompts |

To add an engine, implement `base.py`.
"""
FILES = ("__init__.py", "README.md", "base.py", "weights/__init__.py", "weights/epoch.py", "data/a.jsonl")
ALLOWED = ("configs", "run_folder", "endpoint")


def found_in(text: str) -> list[str]:
    return mistakes("engine", text, FILES, ("weights",), ALLOWED)


def test_a_readme_in_the_agreed_form_is_accepted() -> None:
    assert may_import(GOOD) == ["configs", "run_folder", "endpoint"]
    assert found_in(GOOD) == []
    assert (
        mistakes("engine/weights", "# engine/weights\n\nMay import: `weights`.", (), ("weights",), ()) == []
    )
    assert [*import_mistakes("actors", "May import: `learner`.", ("learner",), ("learner",))] == []
    assert mistakes("configs", "# configs\n\nMay import: nothing of dynalign.\n", (), (), ()) == []


def test_each_way_to_be_wrong_about_a_room_is_one_sentence() -> None:
    wrong = {
        "`endpoint`.": "`actors`.",
        "| `base.py` | the interface of an engine |": "| `bose.py` | |",
        "| `data/*.jsonl` | prompts |": "| `data/*.jsonl` | prompts |\n| `data/*.jsonl` | prompts |",
        "# engine\n": "# motor\n",
    }
    text = GOOD
    for right, mistake in wrong.items():
        text = text.replace(right, mistake)
    assert [sentence.removeprefix("engine/README.md ").partition(":")[0] for sentence in found_in(text)] == [
        "does not name endpoint in `May import`, where MAY_IMPORT has it",
        "names actors in `May import`, which MAY_IMPORT does not have",
        "has no row for `base.py`",
        "has a row for `bose.py`, which is not there",
        "has 2 rows for `data/*.jsonl`",
        "does not say what `bose.py` is",
        "does not begin with `# engine`",
    ]
    assert found_in(GOOD.replace("May import", "Imports"))[0].startswith("engine/README.md has no line")
