"""YAML as a tree of values with their origins: `learner.learning_rate` is from `quickstart.yaml:12`.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `1e-6` is a number, `no` is a word, `010` is
ten, `1:30` is text.

A few bytes of YAML can stand for any number of values, by aliases of aliases. So what is composed and what it
stands for are both counted, and both have a bound.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import yaml

from dynalign.configs.errors import Mistake, UserError

COMMAND_LINE = "command line"
DEFAULT = "default"
MOST_VALUES = 5_000
"""Keys and values of one text, aliases followed. The settings have about a hundred."""
MOST_DIGITS = 100
"""Of a whole number. Larger ones cannot be converted to floating point."""
MOST_LEVELS = 20
"""Sections and lists inside each other. The settings have three."""


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


@dataclass(frozen=True, slots=True)
class TooMany:
    """Stands for a value that was not read, because it stands for too many. No setting accepts it.

    Example: `TooMany(1_000_000)`, from a list of lists that are all aliases.
    """

    values: int
    """Keys and values that it stands for."""

    def __repr__(self) -> str:
        return f"<{self.values:,} values>" if self.values < 10**12 else "<more values than fit in memory>"


class _Loader(yaml.SafeLoader):
    """Composes nodes and constructs no objects, so no tag can run code.

    Raises MarkedYAMLError for too many values or levels while it composes, before it has read all of them.
    """

    yaml_implicit_resolvers = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values = 0
        self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes one node with what is in it. Overrides yaml.composer.Composer."""
        self._values += 1
        self._levels += 1
        if self._values > MOST_VALUES:
            self._refuse(f"it is not a settings file: it has more than {MOST_VALUES:,} keys and values")
        if self._levels > MOST_LEVELS:
            self._refuse(f"it is nested too deeply, over more than {MOST_LEVELS} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def _refuse(self, problem: str) -> NoReturn:
        mark = self.get_mark()
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


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
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise unreadable(source, str(error.problem or error.context), line=line) from error
    except yaml.YAMLError as error:
        raise unreadable(source, str(error).splitlines()[0]) from error


class _Reader:
    """Turns nodes into a tree. Collects a mistake for each duplicate or dotted key, so that all of them are
    reported."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self._values_left = MOST_VALUES
        self._sizes: dict[yaml.Node, int] = {}
        self._aliased: set[yaml.Node] = set()
        self._path = ""

    def unreadable(self, cause: str, node: yaml.Node) -> UserError:
        """The error for a node, with the key under which it stands."""
        return unreadable(self.source, f"{self._path}: {cause}" if self._path else cause, node)

    def origin(self, node: yaml.Node) -> str:
        return self.source if self.source == COMMAND_LINE else f"{self.source}:{node.start_mark.line + 1}"

    def tree(self, node: yaml.MappingNode, path: str = "") -> Tree:
        tree: Tree = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.unreadable("a key is a list or a mapping", key_node)
            key = str(key_node.value)
            dotted = f"{path}.{key}" if path else key
            place = f"{dotted} ({self.origin(key_node)})"
            if "." in key:
                section, _, rest = key.partition(".")
                remedy = f"write it as `{section}:`, with `{rest}:` in a line of its own below, indented"
                self.mistakes.append(Mistake(place, None, "is a key with a dot, for a section", remedy))
                continue
            if key in tree:
                self.mistakes.append(
                    Mistake(place, None, "stands twice in one section", "keep one of the two lines")
                )
            tree[key] = self.value(value_node, key_node, dotted)
        return tree

    def value(self, node: yaml.Node, origin_node: yaml.Node, path: str) -> Leaf | Tree:
        self._path = path
        values = self._sizes[node]
        own_section = isinstance(node, yaml.MappingNode) and node not in self._aliased
        if (1 if own_section else values) > self._values_left:
            return Leaf(TooMany(values), self.origin(origin_node))
        if isinstance(node, yaml.MappingNode):
            self.refuse_other_tag(node, "map")
            self._values_left -= 1
            return self.tree(node, path)
        self._values_left -= values
        return Leaf(self.plain(node), self.origin(origin_node))

    def measure(self, node: yaml.Node) -> int:
        """How many keys and values a node stands for, each alias counted as what it stands for.

        Called once, before `tree` or `value`. Raises UserError for an anchor that refers to itself.
        """
        if node not in self._sizes:
            self._sizes[node] = 0  # while those in it are counted
            pairs = isinstance(node, yaml.MappingNode)
            below = [] if isinstance(node, yaml.ScalarNode) else node.value
            items = [item for pair in below for item in pair] if pairs else below
            self._sizes[node] = 1 + sum(self.measure(item) for item in items)
        elif self._sizes[node] == 0:
            raise self.unreadable("an anchor refers to itself", node)
        else:
            self._aliased.add(node)
        return self._sizes[node]

    def plain(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self.refuse_other_tag(node, "seq")
            return tuple(self.plain(item) for item in node.value)
        raise self.unreadable("a list contains a mapping", node)

    def refuse_other_tag(self, node: yaml.Node, kind: str) -> None:
        """Raises UserError for a list or mapping that a tag makes something else."""
        if node.tag != _TAG + kind:
            raise self.unreadable(f"the tag {node.tag} is not supported", node)

    def scalar(self, node: yaml.ScalarNode) -> object:
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return self.whole_number(node)
            case "float":
                return self.number(node)
            case "str":
                return node.value
        raise self.unreadable(f"the tag {node.tag} is not supported", node)

    def number(self, node: yaml.ScalarNode) -> float:
        try:
            return float(node.value)
        except ValueError as error:  # a tag that was written says that it is one
            raise self.unreadable(f"{node.value[:40]!r} is not a number", node) from error

    def whole_number(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            raise self.unreadable(f"a number of {len(node.value):,} digits", node)
        try:
            return int(node.value)
        except ValueError as error:  # a tag that was written says that it is one
            raise self.unreadable(f"{node.value[:40]!r} is not a whole number", node) from error


def parse_document(text: str, source: str) -> tuple[Tree, list[Mistake]]:
    """A settings file as a tree, with one mistake per duplicate key.

    source: the name of the file, for origins. Raises UserError if the text is not YAML, or is no mapping.
    """
    node = _compose(text, source)
    reader = _Reader(source)
    if node is None or (isinstance(node, yaml.ScalarNode) and reader.scalar(node) is None):
        return {}, []
    if not isinstance(node, yaml.MappingNode):
        raise unreadable(source, "its top level is not a mapping of keys to values", node)
    reader.measure(node)
    return reader.tree(node), reader.mistakes


def parse_value(text: str) -> Leaf | Tree:
    """The right side of `section.key=value`. An empty one is null.

    Raises UserError if it is not YAML, or if a key occurs twice or has a dot.
    """
    node = _compose(text, COMMAND_LINE)
    if node is None:
        return Leaf(None, COMMAND_LINE)
    reader = _Reader(COMMAND_LINE)
    reader.measure(node)
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
