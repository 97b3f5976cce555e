"""The project's own files, parsed once, for the tests of its rules; and a way to refuse with sentences."""

import ast
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def packages() -> tuple[str, ...]:
    """The product's packages, as pyproject.toml lists them: `dynalign`, `dynalign.rollout`, …"""
    return tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])


@cache
def rooms() -> tuple[str, ...]:
    """The folders in the root that hold the product: `rollout`, …"""
    return tuple(sorted({name.split(".")[1] for name in packages() if "." in name}))


@cache
def product() -> dict[str, ast.Module]:
    """Every Python file of the product by its path from the root."""
    return {path: tree for room in rooms() for path, tree in _parsed(room).items()}


@cache
def suite() -> dict[str, ast.Module]:
    """The same for the tests."""
    return _parsed("tests")


@cache
def project_files() -> tuple[str, ...]:
    """What a commit holds or would hold: tracked files, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return tuple(sorted(path for path in set(listing.stdout.split("\0")) if path and (ROOT / path).is_file()))


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of a file, in the order of `ast.walk`. Walked once, since a dozen rules ask for them."""
    return tuple(ast.walk(tree))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every imported module with its line. Imports in functions and `importlib.import_module("…")` count too.

    `from a import b` may name a module b of the package a, or a class b of the module a. Both `a` and `a.b`
    are given, and the caller keeps what is a module.
    """
    for node in nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module, node.lineno
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in names)
            case ast.Call(args=[ast.Constant(value=str(module)), *_]) if ast.unparse(node.func).endswith(
                ("import_module", "__import__")
            ):
                yield module, node.lineno


def refuse(violations: Iterable[str]) -> None:
    """Fails with the violations, one sentence a line, and no traceback. Passes where there is none."""
    lines = sorted(set(violations))
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def _parsed(room: str) -> dict[str, ast.Module]:
    paths = sorted((ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}
