"""The house numbers and habits (CONTRIBUTING.md), for the product and its tests. Each violation is one sentence that says what to do."""

import ast
import re
from collections.abc import Iterator

from tests.worlds.product import ROOT, product, project_files, refuse, suite

FILE_LINES = 350
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def everything() -> dict[str, ast.Module]:
    return product() | suite()


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    return (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    )


def texts() -> Iterator[tuple[str, int, str]]:
    """Every line of every text file that a commit holds: path, line number, line."""
    for path in project_files():
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            yield from (
                (path, number, line)
                for number, line in enumerate(content.decode(errors="replace").splitlines(), 1)
            )


def test_a_file_fits_in_350_lines() -> None:
    refuse(
        f"{path} has {length} lines of at most {FILE_LINES}: split it by what it is about"
        for path in everything()
        if (length := len((ROOT / path).read_text().splitlines())) > FILE_LINES
    )


def test_a_function_fits_in_60_lines() -> None:
    refuse(
        f"{path}:{function.lineno} {function.name} has {length} lines of at most {FUNCTION_LINES}: give its parts names of their own"
        for path, tree in everything().items()
        for function in functions(tree)
        if (length := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES
    )


def without_annotation(function: Function, in_class: bool) -> Iterator[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in function.decorator_list)
    named = named[1:] if in_class and not static else named
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    yield from (
        argument.arg for argument in [*named, *arguments.kwonlyargs, *rest] if argument.annotation is None
    )
    if function.returns is None:
        yield "its result"


def test_every_function_is_annotated() -> None:
    violations = []
    for path, tree in everything().items():
        methods = {
            function for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for function in node.body
        }
        for function in functions(tree):
            missing = ", ".join(without_annotation(function, function in methods))
            if missing:
                violations.append(
                    f"{path}:{function.lineno} {function.name} does not say the type of {missing}: annotate it"
                )
    refuse(violations)


def test_getattr_has_no_default() -> None:
    refuse(
        f"{path}:{call.lineno} calls getattr with a default, which hides a misspelt name: declare the attribute, or ask hasattr and say why"
        for path, tree in everything().items()
        for call in calls(tree, "getattr")
        if len(call.args) + len(call.keywords) > 2
    )


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or ast.unparse(kind).split(".")[-1] in ("Exception", "BaseException") for kind in caught
    )


def test_only_supervision_catches_everything() -> None:
    refuse(
        f"{path}:{node.lineno} catches every error: name the ones that are expected, and let the others reach actors/supervision/supervisor.py"
        for path, tree in everything().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and is_broad(node)
        and path != "actors/supervision/supervisor.py"
    )


def test_only_launch_prints() -> None:
    refuse(
        f"{path}:{call.lineno} prints: return the value, log it, or raise; only launch/ talks to the user"
        for path, tree in everything().items()
        for call in calls(tree, "print")
        if not path.startswith("launch/")
    )


def test_init_files_are_empty() -> None:
    refuse(
        f"{path} is not empty: give its content a file with a name, and import that"
        for path in everything()
        if path.endswith("__init__.py") and (ROOT / path).stat().st_size
    )


# Written so that these patterns do not match themselves.
MACHINE_PATH = re.compile(r"(?<![\w.~}\]*-])/(work|root|home|tmp|opt/wheels|opt/pypi)(/|\b)")
CONTAINER_PATH = re.compile(r"/(root|tmp|home/ray)\b")
REGISTRY = re.compile(r"(pypi\.|pythonhosted\.|download\.pytorch\.)(org|net)", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")


def test_no_file_names_a_path_of_one_machine() -> None:
    refuse(
        f"{path}:{number} names {found.group()}…, which exists on one machine: take it from a setting, the environment or tmp_path"
        for path, number, line in texts()
        for found in [MACHINE_PATH.search(CONTAINER_PATH.sub("", line) if path.startswith("k8s/") else line)]
        if found
    )


def test_no_file_names_a_package_registry() -> None:
    refuse(
        f"{path}:{number} names a package registry: where packages come from is the reader's own configuration"
        for path, number, line in texts()
        if REGISTRY.search(line)
    )


def test_nothing_is_left_for_later() -> None:
    refuse(
        f"{path}:{number} says {found.group()}: do it now or take it out"
        for path, number, line in texts()
        for found in [UNFINISHED.search(line)]
        if found
    )


def test_the_text_rules_see_what_they_are_about_and_let_the_rest_pass() -> None:
    a_path, a_registry, a_note = "cd /wo" + "rk/main", "https://py" + "pi.org/simple", "# TO" + "DO later"
    assert MACHINE_PATH.search(a_path)
    assert REGISTRY.search(a_registry)
    assert UNFINISHED.search(a_note)
    assert not MACHINE_PATH.search("runs/work/x, ~/.cache, ${HOME}/tmp/x, network/homework")


def test_a_broad_except_and_a_missing_annotation_are_seen() -> None:
    method = "def f(self, a, *b, c: int) -> None:\n  try: g()\n  except (KeyError, Exception): pass\n"
    tree = ast.parse(method + "@staticmethod\ndef s(x): ...")
    assert [list(without_annotation(function, in_class=True)) for function in functions(tree)] == [
        ["a", "b"],
        ["x", "its result"],
    ]
    assert [is_broad(node) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)] == [True]
