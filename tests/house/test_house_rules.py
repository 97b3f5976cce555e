"""The house numbers and habits of CONTRIBUTING.md, for the product and its tests.

Each violation is one sentence that says what to do.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tests.worlds.product import ROOT, imports, nodes, product, project_files, refuse, suite

FILE_LINES = 350
FUNCTION_LINES = 60
LINE_CHARACTERS = 110
PRAGMA = re.compile(r"\s*# (fmt|noqa|type: ignore).*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def everything() -> dict[str, ast.Module]:
    return product() | suite()


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in nodes(tree) if isinstance(node, Function))


def calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    return (
        node
        for node in nodes(tree)
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
        f"{path}:{function.lineno} {function.name} has {length} lines of at most {FUNCTION_LINES}: "
        "give its parts names of their own"
        for path, tree in everything().items()
        for function in functions(tree)
        if (length := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES
    )


def is_long(line: str) -> bool:
    """Whether a line is too long. One word cannot be wrapped; `noqa` and `type: ignore` are not counted."""
    text = PRAGMA.sub("", line)
    return len(text) > LINE_CHARACTERS and len(text.split()) > 1


def test_a_line_fits_in_110_characters() -> None:
    refuse(
        f"{path}:{number} has {len(line)} characters of at most {LINE_CHARACTERS}: wrap it"
        for path in everything()
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if is_long(line)
    )


def test_no_two_classes_of_the_product_share_a_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in product().items():
        for node in nodes(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path}:{node.lineno}")
    refuse(
        f"{name} is a class in {' and in '.join(paths)}: give each a name that says which it is"
        for name, paths in found.items()
        if len(paths) > 1
    )


def is_crammed(node: ast.AST) -> bool:
    """Whether a node assigns a tuple, written out on the right, to several targets. A swap may stay."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    targets = [target for each in node.targets if isinstance(each, ast.Tuple) for target in each.elts]
    names = sorted(map(ast.unparse, targets))
    return len(names) > 1 and names != sorted(map(ast.unparse, node.value.elts))


def test_an_assignment_sets_one_thing() -> None:
    refuse(
        f"{path}:{node.lineno} sets several things in one assignment: give each a line of its own"
        for path, tree in product().items()
        for node in nodes(tree)
        if isinstance(node, ast.Assign) and is_crammed(node)
    )


FIELD = r":(param|type|return|rtype|raise)s?\b.*:"
SECTION = r"(Args|Returns|Raises|Yields):\s*$|-{3,}\s*$"
OTHER_DIALECT = re.compile(rf"\s*({FIELD}|{SECTION})")
"""A line of a docstring in reStructuredText fields, or in Google's or NumPy's sections."""


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, that below a field included."""
    for node in nodes(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def test_a_docstring_is_prose() -> None:
    refuse(
        f"{path}:{number} has `{line.strip()}` in a docstring: write prose, as `name: meaning, with unit.`"
        for path, tree in everything().items()
        for number, text in docstrings(tree)
        for line in text.splitlines()
        if OTHER_DIALECT.match(line)
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
            function for node in nodes(tree) if isinstance(node, ast.ClassDef) for function in node.body
        }
        for function in functions(tree):
            missing = ", ".join(without_annotation(function, function in methods))
            if missing:
                where = f"{path}:{function.lineno} {function.name}"
                violations.append(f"{where} does not say the type of {missing}: annotate it")
    refuse(violations)


def test_getattr_has_no_default() -> None:
    refuse(
        f"{path}:{call.lineno} calls getattr with a default, which hides a misspelt name: "
        "declare the attribute, or ask hasattr and say why"
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
        f"{path}:{node.lineno} catches every error: name those that are expected, and let the others reach "
        "actors/supervision/, which restarts with a budget and a cause"
        for path, tree in everything().items()
        for node in nodes(tree)
        if isinstance(node, ast.ExceptHandler)
        and is_broad(node)
        and not path.startswith("actors/supervision/")
    )


def is_ours(patched: ast.expr, imported: set[str]) -> bool:
    """Whether what `monkeypatch.setattr` changes is of the product: its path as text, or an imported name."""
    if isinstance(patched, ast.Constant):
        return str(patched.value).startswith("dynalign.")
    return ast.unparse(patched).split(".")[0] in imported


def patches(tree: ast.Module) -> Iterator[int]:
    """The lines that replace a part of the product for a test, or import a library for that."""
    ours = [
        node
        for node in nodes(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dynalign"
    ]
    imported = {alias.asname or alias.name for node in ours for alias in node.names}
    for node in nodes(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[first, *_]) if is_ours(first, imported):
                yield node.lineno
    yield from (line for name, line in imports(tree) if name.split(".")[:2] == ["unittest", "mock"])


def test_nothing_of_the_product_is_patched() -> None:
    refuse(
        f"{path}:{line} patches the product: give what it replaces a parameter, and pass the fake"
        for path, tree in suite().items()
        for line in patches(tree)
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


# Each unfinished word has a bracket in it, so that the pattern does not match this file.
MACHINE_PATH = re.compile(r"(?<![\w.~}\]*-])/(work|root|home|tmp|opt/wheels|opt/pypi)(/|\b)")
CONTAINER_PATH = re.compile(r"/(root|tmp|home/ray)\b")
REGISTRY = re.compile(r"(pypi\.|pythonhosted\.|download\.pytorch\.)(org|net)", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")


def test_no_file_names_a_path_of_one_machine() -> None:
    refuse(
        f"{path}:{number} names {found.group()}…, which exists on one machine: "
        "take it from a setting, the environment or tmp_path"
        for path, number, line in texts()
        for found in [MACHINE_PATH.search(CONTAINER_PATH.sub("", line) if path.startswith("k8s/") else line)]
        if found
    )


def test_no_file_names_a_package_registry() -> None:
    refuse(
        f"{path}:{number} names a package registry: which one to use is the reader's own configuration"
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
    assert MACHINE_PATH.search("cd /wo" + "rk/main")
    assert REGISTRY.search("https://py" + "pi.org/simple")
    assert UNFINISHED.search("# TO" + "DO later")
    assert not MACHINE_PATH.search("runs/work/x, ~/.cache, ${HOME}/tmp/x, network/homework")


def test_a_broad_except_and_a_missing_annotation_are_seen() -> None:
    method = "def f(self, a, *b, c: int) -> None:\n  try: g()\n  except (KeyError, Exception): pass\n"
    tree = ast.parse(method + "@staticmethod\ndef s(x): ...")
    assert [list(without_annotation(function, in_class=True)) for function in functions(tree)] == [
        ["a", "b"],
        ["x", "its result"],
    ]
    assert [is_broad(node) for node in nodes(tree) if isinstance(node, ast.ExceptHandler)] == [True]


def test_a_patch_of_the_product_is_seen_and_one_of_a_library_is_not() -> None:
    ours = "from dynalign.launch import driver\nmonkeypatch.setattr(driver, '_BEAT_S', 1)\n"
    by_name = "monkeypatch.setattr('dynalign.launch.driver._BEAT_S', 1)\nfrom unittest import mock\n"
    assert [*patches(ast.parse(ours + by_name))] == [2, 3, 4]
    assert not [*patches(ast.parse("import sys\nmonkeypatch.setattr(sys, 'path', [])"))]


def test_a_crammed_assignment_is_seen_and_a_swap_or_an_unpacking_passes() -> None:
    assert is_crammed(ast.parse("self.a, self.b = a, b").body[0])
    assert is_crammed(ast.parse("a, b = b, a % b").body[0])
    assert not any(is_crammed(node) for node in ast.parse("a, b = b, a; a, b = f(); a, b = c; a = b, c").body)


def test_a_docstring_in_another_dialect_is_seen_and_a_sentence_passes() -> None:
    others = (":param x: what", "    :raises ValueError: never", "Args:", "    -------")
    assert all(OTHER_DIALECT.match(line) for line in others)
    assert not OTHER_DIALECT.match("Raises ValueError if x is negative.")
