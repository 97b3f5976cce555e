"""YAML as a tree of values with their origins: `learner.learning_rate` is from `quickstart.yaml:12`.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `1e-6` is a number, `no` is a word, `010` is
ten, `1:30` is text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from dynalign.configs.errors import Mistake, UserError

COMMAND_LINE = "command line"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value with its origin.

    Example: `Leaf(1e-6, "quickstart.yaml:12")`.
    """

    value: object
    """Null, bool, int, float, str, or a tuple of these."""
    origin: str
    """`<file>:<line>`, `command line`, or `default`."""


Tree: TypeAlias = dict[str, "Leaf | Tree"]


class _Loader(yaml.SafeLoader):
    """Composes nodes and constructs no objects, so no tag can run code."""

    yaml_implicit_resolvers = {}


_TAG = "tag:yaml.org,2002:"
# The first pattern that matches wins, and the number pattern also matches whole numbers.
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


def unreadable(source: str, cause: str, node: yaml.Node | None = None, line: int = 0) -> UserError:
    """The error for text that cannot become a tree. line: counts from 1; 0 where it is unknown."""
    line = node.start_mark.line + 1 if node is not None else line
    place = f"{source}:{line}" if line and source != COMMAND_LINE else source
    return UserError(
        [
            Mistake(
                place, None, f"cannot be read as settings: {cause}", "correct it, or put the value in quotes"
            )
        ]
    )


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
        return node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise unreadable(source, str(error.problem or error.context), line=line) from error
    except yaml.YAMLError as error:
        raise unreadable(source, str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise unreadable(source, "it is nested too deeply") from error


class _Reader:
    """Turns nodes into a tree. Collects a mistake for each duplicate key, so that all of them are
    reported."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []

    def origin(self, node: yaml.Node) -> str:
        return self.source if self.source == COMMAND_LINE else f"{self.source}:{node.start_mark.line + 1}"

    def tree(self, node: yaml.MappingNode, path: str = "") -> Tree:
        tree: Tree = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise unreadable(self.source, "a key is a list or a mapping", key_node)
            key = str(key_node.value)
            dotted = f"{path}.{key}" if path else key
            if key in tree:
                place = f"{dotted} ({self.origin(key_node)})"
                self.mistakes.append(
                    Mistake(place, None, "stands twice in one section", "keep one of the two lines")
                )
            tree[key] = self.value(value_node, key_node, dotted)
        return tree

    def value(self, node: yaml.Node, origin_node: yaml.Node, path: str) -> Leaf | Tree:
        if isinstance(node, yaml.MappingNode):
            return self.tree(node, path)
        return Leaf(self.plain(node), self.origin(origin_node))

    def plain(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.plain(item) for item in node.value)
        raise unreadable(self.source, "a list contains a mapping", node)

    def scalar(self, node: yaml.ScalarNode) -> object:
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return self.whole_number(node)
            case "float":
                return float(node.value)
            case "str":
                return node.value
        raise unreadable(self.source, f"the tag {node.tag} is not supported", node)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        try:
            return int(node.value)
        except ValueError as error:  # Python refuses to convert more than some thousands of digits
            raise unreadable(self.source, f"a number of {len(node.value):,} digits", node) from error


def parse_document(text: str, source: str) -> tuple[Tree, list[Mistake]]:
    """A settings file as a tree, with one mistake per duplicate key.

    source: the name of the file, for origins. Raises UserError if the text is not YAML, or is no mapping.
    """
    node = _compose(text, source)
    if node is None:
        return {}, []
    if not isinstance(node, yaml.MappingNode):
        raise unreadable(source, "its top level is not a mapping of keys to values", node)
    reader = _Reader(source)
    try:
        return reader.tree(node), reader.mistakes
    except RecursionError as error:
        raise unreadable(source, "an anchor refers to itself") from error


def parse_value(text: str) -> Leaf | Tree:
    """The right side of `section.key=value`. An empty one is null.

    Raises UserError if it is not YAML, or if a key occurs twice.
    """
    node = _compose(text, COMMAND_LINE)
    if node is None:
        return Leaf(None, COMMAND_LINE)
    reader = _Reader(COMMAND_LINE)
    value = reader.value(node, node, "")
    if reader.mistakes:
        raise UserError(reader.mistakes)
    return value


def overlay(tree: Tree, path: tuple[str, ...], value: Leaf | Tree) -> None:
    """Writes `value` at `path`, and makes the sections on the way. A section changes only the keys that it
    names."""
    *parents, last = path
    for key in parents:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    if isinstance(value, Leaf):
        tree[last] = value
        return
    if not isinstance(tree.get(last), dict):
        tree[last] = {}
    for key, item in value.items():
        overlay(tree, (*path[-1:], key), item)


def plain(tree: Tree) -> dict[str, object]:
    """The values without their origins."""
    return {key: item.value if isinstance(item, Leaf) else plain(item) for key, item in tree.items()}


def find(tree: Tree, path: tuple[str, ...]) -> Leaf | Tree | None:
    """The value or section at `path`, or None."""
    here: Leaf | Tree | None = tree
    for key in path:
        here = here.get(key) if isinstance(here, dict) else None
    return here


def prune(tree: Tree, path: tuple[str, ...]) -> None:
    """Removes the value or section at `path`, if there is one."""
    section = find(tree, path[:-1])
    if isinstance(section, dict):
        section.pop(path[-1], None)


def origins(tree: Tree, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, origin) of every leaf."""
    for key, item in tree.items():
        dotted = f"{path}.{key}" if path else key
        if isinstance(item, Leaf):
            yield dotted, item.origin
        else:
            yield from origins(item, dotted)
