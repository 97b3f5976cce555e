"""Who may import whom, function-local imports included. Each violation is one sentence that says what to do."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

from tests.product import ROOT, imports, packages, product, refuse

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "configs": (),
    "rollout": ("configs",),
    "learner": ("configs", "rollout"),
    "actors": ("configs", "rollout", "learner"),
    "dataset": ("configs", "rollout"),
    "evaluation": ("configs", "rollout"),
    "benchmarks": ("configs", "rollout", "learner", "actors", "launch"),
    "launch": ("configs", "rollout", "learner", "actors", "dataset", "evaluation"),
}
"""Room → the rooms that it may import, besides itself."""

LEARNER_READS = ("rollout.arrow_schema", "rollout.records", "rollout.weight_version")
"""A consumer imports its producer's schema, and nothing else of it."""

OWNERS = {
    "ray": ("actors/", "launch/", "benchmarks/control_"),
    "vllm": ("rollout/vllm_",),
    "deepspeed": ("learner/deepspeed_engine.py",),
}
"""Heavy library → the only places that import it."""

HEAVY = ("deepspeed", "openai", "pyarrow", "ray", "torch", "transformers", "vllm")

BARE = (
    "configs.load",
    "learner.advantages",
    "learner.packing",
    "learner.schedule",
    "rollout.ledger_rules",
    "rollout.prompts",
    "rollout.scoring",
)
"""The algorithm: importable, and so testable and readable, without any heavy library."""


def room_of(name: str) -> str:
    return name.split(".")[0].split("/")[0]


def modules() -> dict[str, str]:
    """Module name → path."""
    return {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in product()}


def test_imports_inside_functions_and_by_name_are_seen() -> None:
    hidden = "def f():\n  import ray.util\n  from vllm import LLM\n  return importlib.import_module('openai')"
    assert {name for name, _ in imports(ast.parse(hidden))} == {"ray.util", "vllm", "vllm.LLM", "openai"}


def test_every_package_has_its_place_in_the_layering() -> None:
    unplaced = {room_of(package) for package in packages()} - set(MAY_IMPORT)
    refuse(f"{room} has no line in MAY_IMPORT: decide there what it may import" for room in unplaced)


def test_each_room_imports_only_the_rooms_below_it() -> None:
    refuse(
        f"{path}:{line} imports {room_of(name)}, which {room_of(path)} may not: move the code to a room that may, or pass it what it needs"
        for path, tree in product().items()
        for name, line in imports(tree)
        if room_of(name) in MAY_IMPORT and room_of(name) not in (room_of(path), *MAY_IMPORT[room_of(path)])
    )


def test_the_learner_reads_nothing_of_rollout_but_its_records() -> None:
    refuse(
        f"{path}:{line} imports {name}, of which the learner knows nothing: move what both need to {', '.join(LEARNER_READS)} or configs"
        for path, tree in product().items()
        for name, line in imports(tree)
        if room_of(path) == "learner" and room_of(name) == "rollout" and name in modules() and name not in LEARNER_READS
    )


def test_each_heavy_library_is_imported_only_by_its_owner() -> None:
    refuse(
        f"{path}:{line} imports {library}, which belongs to {' and '.join(owners)}: call what is there, or write it there"
        for path, tree in product().items()
        for name, line in imports(tree)
        for library, owners in OWNERS.items()
        if room_of(name) == library and not path.startswith(owners)
    )


def test_openai_has_one_owner_at_most() -> None:
    owners = sorted(path for path, tree in product().items() if any(room_of(name) == "openai" for name, _ in imports(tree)))
    refuse([f"{', '.join(owners)} all import openai: let one of them own it and the others call that one"] if len(owners) > 1 else [])


def test_configs_imports_no_heavy_library() -> None:
    refuse(
        f"{path}:{line} imports {name}: settings are read where it is not wanted, so give the value a name and let its user look it up"
        for path, tree in product().items()
        for name, line in imports(tree)
        if room_of(path) == "configs" and room_of(name) in HEAVY
    )


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    graph = {module: {name for name, _ in imports(product()[path]) if name in known and name != module} for module, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        refuse([f"{' → '.join(error.args[1][::-1])} is an import cycle: move what they share into a module that imports none of them"])


def test_the_algorithm_imports_without_any_heavy_library() -> None:
    script = f"""
import importlib, sys
for module in {BARE}:
    importlib.import_module(module)
    for library in {HEAVY}:
        if sys.modules.pop(library, None):
            print(f"{{module}} brings {{library}} along: import it inside the function that needs it, or move that function out")
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    refuse([*ended.stdout.splitlines(), *ended.stderr.splitlines()[-1:]])
