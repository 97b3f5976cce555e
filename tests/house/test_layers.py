"""Who may import whom, function-local imports included.

Each violation is one sentence that says what to do.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.worlds.product import ROOT, imports, nodes, product, refuse, rooms, suite

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "configs": (),
    "run_folder": ("configs",),
    "endpoint": ("configs", "run_folder"),
    "rollout": ("configs", "run_folder", "endpoint"),
    "learner": ("configs", "run_folder", "rollout"),
    "dataset": ("configs", "run_folder", "endpoint", "rollout"),
    "evaluation": ("configs", "run_folder", "endpoint", "rollout"),
    "actors": ("configs", "run_folder", "endpoint", "rollout", "learner", "dataset", "evaluation"),
    "launch": ("configs", "run_folder", "endpoint", "rollout", "learner", "dataset", "evaluation", "actors"),
    "benchmarks": (
        "configs",
        "run_folder",
        "endpoint",
        "rollout",
        "learner",
        "evaluation",
        "actors",
        "launch",
    ),
}
"""Room → the rooms that it may import, besides itself. A room is a folder of the root with product code."""

LEARNER_READS = (
    "dynalign.rollout.arrow_schema",
    "dynalign.rollout.records",
    "dynalign.rollout.weights.version",
)
"""A consumer imports its producer's schema, and nothing else of it."""

DATASET_READS = (
    "dynalign.rollout.prompts",
    "dynalign.rollout.prompt_sources",
    "dynalign.rollout.judges.value_texts",
)
"""Generated prompts are written in the form that a run reads, and know the value definition."""

OWNERS = {
    "ray": ("actors/", "launch/", "benchmarks/control/"),
    "vllm": ("rollout/engine/vllm",),
    "deepspeed": ("learner/deepspeed_engine.py",),
    "openai": ("endpoint/client.py",),
    "lm_eval": ("evaluation/suites/harness.py",),
}
"""Heavy library → the only places that import it."""

HEAVY = ("deepspeed", "openai", "pyarrow", "ray", "torch", "transformers", "vllm")

BARE = (
    "dynalign.configs.load",
    "dynalign.learner.advantages",
    "dynalign.learner.rows.packing",
    "dynalign.learner.schedule",
    "dynalign.rollout.judges.scoring",
    "dynalign.rollout.ledger.rules",
    "dynalign.rollout.prompts",
    "dynalign.run_folder.layout",
)
"""The algorithm: importable, and so testable and readable, without any heavy library."""


def room_of(path: str) -> str:
    """The room of a product file."""
    return path.split("/")[0]


def imported_room(name: str) -> str | None:
    """The room of an imported module; None for a library."""
    first, _, rest = name.partition(".")
    return rest.split(".")[0] if first == "dynalign" and rest else None


def modules() -> dict[str, str]:
    """Module name → path."""
    names = {path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in product()}
    return {f"dynalign.{name}": path for path, name in names.items()}


def test_imports_inside_functions_and_by_name_are_seen() -> None:
    hidden = "def f():\n  import ray.util\n  from vllm import LLM\n  return importlib.import_module('openai')"
    assert {name for name, _ in imports(ast.parse(hidden))} == {"ray.util", "vllm", "vllm.LLM", "openai"}


def test_every_room_has_a_line_in_the_table_of_layers() -> None:
    refuse(
        f"{room} has no line in MAY_IMPORT: decide there what it may import"
        for room in set(rooms()) - set(MAY_IMPORT)
    )


def test_every_room_is_imported_by_its_one_name_and_linked_under_it() -> None:
    refuse(
        f"{path}:{line} imports {name}: write dynalign.{name}, the name it has wherever dynalign is installed"
        for path, tree in (product() | suite()).items()
        for name, line in imports(tree)
        if name.split(".")[0] in rooms()
    )
    links = {link.name: link.readlink() for link in (ROOT / "dynalign").iterdir() if link.is_symlink()}
    assert links == {room: Path("..") / room for room in rooms()}


def test_every_room_is_named_dynalign_where_its_files_or_modules_are_looked_up() -> None:
    refuse(
        f"{path}:{node.lineno} looks up {node.args[0].value}: write dynalign.{node.args[0].value}"
        for path, tree in (product() | suite()).items()
        for node in nodes(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("files", "import_module", "find_spec")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).split(".")[0] in rooms()
    )


def test_each_room_imports_only_the_rooms_below_it() -> None:
    refuse(
        f"{path}:{line} imports {room}, which {room_of(path)} may not: "
        "move the code to a room that may, or pass it what it needs"
        for path, tree in product().items()
        for name, line in imports(tree)
        for room in [imported_room(name)]
        if room in MAY_IMPORT and room not in (room_of(path), *MAY_IMPORT[room_of(path)])
    )


@pytest.mark.parametrize(("reader", "reads"), [("learner", LEARNER_READS), ("dataset", DATASET_READS)])
def test_a_consumer_reads_nothing_of_rollout_but_its_records(reader: str, reads: tuple[str, ...]) -> None:
    refuse(
        f"{path}:{line} imports {name}, of which {reader} knows nothing: "
        f"move what both need to {', '.join(reads)} or configs"
        for path, tree in product().items()
        for name, line in imports(tree)
        if room_of(path) == reader
        and imported_room(name) == "rollout"
        and name in modules()
        and not modules()[name].endswith("__init__.py")
        and name not in reads
    )


def test_each_heavy_library_is_imported_only_by_its_owner() -> None:
    refuse(
        f"{path}:{line} imports {library}, which belongs to {' and '.join(owners)}: "
        "call what is there, or write it there"
        for path, tree in product().items()
        for name, line in imports(tree)
        for library, owners in OWNERS.items()
        if name.split(".")[0] == library and not path.startswith(owners)
    )


def test_configs_imports_no_heavy_library() -> None:
    refuse(
        f"{path}:{line} imports {name}, which is slow to load and not wanted where settings are read: "
        "give the value a name in the settings, and look it up where it is used"
        for path, tree in product().items()
        for name, line in imports(tree)
        if room_of(path) == "configs" and name.split(".")[0] in HEAVY
    )


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    graph = {
        module: {name for name, _ in imports(product()[path]) if name in known and name != module}
        for module, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " → ".join(error.args[1][::-1])
        refuse([f"{cycle} is an import cycle: move what they share into a module that imports none of them"])


def test_the_algorithm_imports_without_any_heavy_library() -> None:
    script = f"""
import importlib, sys
for module in {BARE}:
    importlib.import_module(module)
    for library in {HEAVY}:
        if sys.modules.pop(library, None):
            print(
                f"{{module}} imports {{library}}, itself or through others: "
                "import it inside the function that needs it, or move that function to another file"
            )
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    refuse([*ended.stdout.splitlines(), *ended.stderr.splitlines()[-1:]])
