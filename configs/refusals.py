"""A refused value in words: the rule that it breaks, and the values that are allowed."""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dynalign.configs.earlier_versions import FIXED_SAMPLING, FIXED_SAMPLING_RULE
from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.configs.section import Section
from dynalign.configs.tree import Leaf, Tree, find

Bound = Ge | Gt | Le | Lt
"""A limit of a number in the schema."""

MISSING = "is missing"
_TYPES = {
    "bool_type": ("must be true or false", "write true or false"),
    "int_type": ("must be a whole number", "write it with digits only"),
    "float_type": ("must be a number", "write it like 0.5 or 1e-6"),
    "string_type": ("must be text", "put it in quotes if it is text that looks like something else"),
    "tuple_type": ("must be a list", "write it like [a, b]"),
    "model_type": ("is a section, not a value", "give it keys of its own, or leave it out"),
    "dict_type": ("is a section, not a value", "give it names with keys of their own, or leave it out"),
}
PATTERNS = {
    "name": (
        "must be lower-case letters, digits, '.', '_' or '-', at most 64, the first a letter or digit",
        "set name=<another>",
    ),
    "checkpoint.mirror": (
        "must be like s3://bucket/path, gs://bucket/path or file:///path",
        "write one of these, or leave it out",
    ),
    "date": ("must be a day like 2026-01-31", "write year, month and day, or leave it out"),
}
"""Rule and remedy of each pattern of the schema, by dotted path."""


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds (or may hold: `lora` can be null), or None for a plain value."""
    annotation = field.annotation
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next(
        (member for member in members if isinstance(member, type) and issubclass(member, Section)), None
    )


def named_section_of(field: FieldInfo) -> type[Section] | None:
    """The section that stands under each of the user's own names in this field; None for another field."""
    if typing.get_origin(field.annotation) is not Mapping:
        return None
    return next((each for each in typing.get_args(field.annotation) if issubclass(each, Section)), None)


def schema_fields(section: type[Section] = RunSettings, path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted path, field) of every setting and every section, in the schema's order."""
    for key, field in section.model_fields.items():
        dotted = f"{path}.{key}" if path else key
        yield dotted, field
        below = section_of(field)
        if below is not None:
            yield from schema_fields(below, dotted)
        named = named_section_of(field)
        if named is not None:
            described = " ".join((named.__doc__ or "").partition("\n\n")[0].split())
            yield f"{dotted}.{NAME}", FieldInfo(annotation=named, description=described)
            yield from schema_fields(named, f"{dotted}.{NAME}")


NAME = "NAME"
"""Stands in a dotted path for a name that is the user's own."""
Fields = Mapping[str, FieldInfo]
"""Dotted path → field, of every setting and section of one schema."""
FIELDS: Fields = dict(schema_fields())
"""Those of a run."""
EXPLAIN = "`dynalign explain <config>` lists every setting"
"""The remedy for an unknown setting of a run that resembles none."""
NAMED = tuple(path for path, field in FIELDS.items() if named_section_of(field) is not None)
"""The sections whose keys are names of the user's own."""


def name_in(path: str) -> tuple[str, str] | None:
    """(section, name) of a dotted path that lies below a name of the user's own; None for another one."""
    for holder in NAMED:
        if path.startswith(f"{holder}."):
            return holder, path.removeprefix(f"{holder}.").partition(".")[0]
    return None


def schema_path(path: str) -> str:
    """The dotted path under which `FIELDS` has a setting: `judge.endpoints.big.model` is
    `judge.endpoints.NAME.model`."""
    found = name_in(path)
    return path if found is None else path.replace(".".join(found), f"{found[0]}.{NAME}", 1)


_LONGEST_GUESS = 80
"""Characters of a word that is compared with known ones, which takes time in the square of its length."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The closest of the known words, whatever their case, or None if none is close."""
    if len(word) > _LONGEST_GUESS:
        return None
    spelt = {each.lower(): each for each in reversed(list(known))}
    close = difflib.get_close_matches(word.lower(), list(spelt), n=1, cutoff=0.6)
    return spelt[close[0]] if close else None


def suggestion(path: str, fields: Fields = FIELDS) -> str | None:
    """The setting that an unknown dotted path probably means, or None.

    Tried in this order: the same name in another section, a close name in the same section, a close name
    anywhere, a close path.
    """
    own = name_in(path)
    if own is not None:
        meant = _meant(schema_path(path), fields)
        return meant and meant.replace(f"{own[0]}.{NAME}", ".".join(own), 1)
    return _meant(path, fields)


def _meant(path: str, fields: Fields) -> str | None:
    """path: as of `fields`."""
    section, _, key = path.rpartition(".")
    anywhere = {dotted.rpartition(".")[2]: dotted for dotted in reversed([*fields])}
    if key in anywhere:
        return anywhere[key]
    siblings = {
        dotted.removeprefix(f"{section}."): dotted
        for dotted in fields
        if dotted.rpartition(".")[0] == section
    }
    for known in (siblings, anywhere):
        close = did_you_mean(key, known)
        if close is not None:
            return known[close]
    return did_you_mean(path, fields)


def bounds(field: FieldInfo) -> list[Bound]:
    """The limits of a number, the lower one first, also where it may be null; [] for anything else."""
    limits = [item for item in field.metadata if isinstance(item, Bound)]
    for member in typing.get_args(field.annotation):
        if typing.get_origin(member) is typing.Annotated:
            inner = [item for item in typing.get_args(member) if isinstance(item, FieldInfo)]
            limits += [limit for each in inner for limit in bounds(each)]
    return limits


def _limit(bound: Bound) -> tuple[str, str]:
    """A limit in words, and the number itself."""
    match bound:
        case Ge(ge=limit):
            return "at least", f"{limit:,}"
        case Gt(gt=limit):
            return "above", f"{limit:,}"
        case Le(le=limit):
            return "at most", f"{limit:,}"
        case Lt(lt=limit):
            return "below", f"{limit:,}"


def _limits(field: FieldInfo) -> str:
    """All limits in words: `at least 2 and at most 1,024`."""
    return " and ".join(" ".join(_limit(bound)) for bound in bounds(field))


def _range(field: FieldInfo) -> str:
    """The allowed numbers in few words: `2 … 1,024`, `1 or more`, `a value above 0.0 and at most 1.0`."""
    match bounds(field):
        case [Ge() as low, Le() as high]:
            return f"{_limit(low)[1]} … {_limit(high)[1]}"
        case [Ge() as low]:
            return f"{_limit(low)[1]} or more"
        case [Ge() as low, Lt() as high]:
            return f"{_limit(low)[1]} or more, and below {_limit(high)[1]}"
    return f"a value {_limits(field)}"


def mistakes_from(
    error: ErrorDetails, tree: Tree, fields: Fields = FIELDS, otherwise: str = EXPLAIN
) -> list[Mistake]:
    """One of pydantic's errors as mistakes: one, or one per value in a section that does not exist.

    fields: of the schema. otherwise: the remedy for an unknown setting that resembles none of them."""
    words = _Words(fields, otherwise)
    path = tuple(part for part in error["loc"] if isinstance(part, str))
    found = find(tree, path)
    if error["type"] == "extra_forbidden" and isinstance(found, dict) and path[-1] not in FIXED_SAMPLING:
        return list(_unknown_values(words, ".".join(path), found))
    return [_mistake_from(words, error["type"], ".".join(path), found)]


class _Words(typing.NamedTuple):
    """What is said of a schema's values."""

    fields: Fields
    otherwise: str


def _unknown_values(words: _Words, dotted: str, found: Leaf | Tree) -> Iterator[Mistake]:
    """A mistake for each value: each may be meant for another section."""
    if isinstance(found, Leaf) or not found:
        yield _mistake_from(words, "extra_forbidden", dotted, found)
        return
    for key, item in found.items():
        yield from _unknown_values(words, f"{dotted}.{key}", item)


def _mistake_from(words: _Words, kind: str, dotted: str, found: Leaf | Tree | None) -> Mistake:
    """Dotted path with its origin, value, rule, remedy. kind: pydantic's name of the error."""
    rule, remedy = _rule_and_remedy(words, kind, dotted, found)
    if not isinstance(found, Leaf) or kind == "missing":
        return Mistake(dotted, None, rule, remedy)
    if found.value is None and kind not in ("extra_forbidden", "model_type"):
        rule = f"has no value, and {rule}"
    return Mistake(f"{dotted} ({found.origin})", found.value, rule, remedy)


def _rule_and_remedy(words: _Words, kind: str, dotted: str, found: Leaf | Tree | None) -> tuple[str, str]:
    """kind: pydantic's name of the error. found: what is at the dotted path in the user's tree."""
    if kind == "extra_forbidden":
        return _unknown(words, dotted)
    field = words.fields[schema_path(dotted)]
    if kind == "missing":
        return MISSING, f"set {dotted}: {field.description}".rstrip(".")
    if isinstance(found, dict) and kind not in ("model_type", "dict_type"):
        remedy = f"set {dotted}=<value>, in quotes if it holds a colon: {field.description}"
        return "is one value, not a section", " ".join(remedy.split()).rstrip(".")
    if kind == "literal_error":
        value = found.value if isinstance(found, Leaf) else None
        choices = [str(choice) for choice in typing.get_args(field.annotation)]
        close = did_you_mean(str(value), choices) or choices[0]
        return f"must be one of {', '.join(choices)}", f"set {dotted}={close}"
    if kind == "string_pattern_mismatch":
        return PATTERNS[dotted]
    if kind in _TYPES:
        rule, remedy = _TYPES[kind]
        return rule, f"{remedy}: {_range(field)}" if bounds(field) else remedy
    return f"must be {_limits(field)}", f"set it to {_range(field)}"


def _unknown(words: _Words, dotted: str) -> tuple[str, str]:
    if dotted.rpartition(".")[2] in FIXED_SAMPLING:
        return FIXED_SAMPLING_RULE, "take it out"
    meant = suggestion(dotted, words.fields)
    remedy = f"did you mean {meant}?" if meant else words.otherwise
    return "is not a setting", remedy
