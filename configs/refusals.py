"""A refused value in the user's words: the rule it breaks, and what would do instead."""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.configs.section import Section
from dynalign.configs.tree import Leaf, Tree, find

MISSING = "is missing"
_TYPES = {
    "bool_type": ("must be true or false", "write true or false"),
    "int_type": ("must be a whole number", "write it with digits only"),
    "float_type": ("must be a number", "write it like 0.5 or 1e-6"),
    "string_type": ("must be text", "put it in quotes if it is text that looks like something else"),
    "tuple_type": ("must be a list", "write it like [a, b]"),
    "model_type": ("is a section, not a value", "give it keys of its own, or leave it out"),
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
"""What the schema's patterns say, by dotted path."""


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds (or may hold: `lora` can be null), or None for a plain value."""
    annotation = field.annotation
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next(
        (member for member in members if isinstance(member, type) and issubclass(member, Section)), None
    )


def schema_fields(section: type[Section] = RunSettings, path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted path, field) of every setting and every section, in the schema's order."""
    for key, field in section.model_fields.items():
        dotted = f"{path}.{key}" if path else key
        yield dotted, field
        below = section_of(field)
        if below is not None:
            yield from schema_fields(below, dotted)


FIELDS = dict(schema_fields())


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The closest of the known words, or None if none is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def suggestion(path: str) -> str | None:
    """The setting that an unknown dotted path probably means, or None.

    In this order: one of exactly this name in another section, a close name in its own section, a close name anywhere, a close path.
    """
    section, _, key = path.rpartition(".")
    anywhere = {dotted.rpartition(".")[2]: dotted for dotted in reversed(FIELDS)}
    if key in anywhere:
        return anywhere[key]
    siblings = {
        dotted.removeprefix(f"{section}."): dotted
        for dotted in FIELDS
        if dotted.rpartition(".")[0] == section
    }
    for known in (siblings, anywhere):
        close = did_you_mean(key, known)
        if close is not None:
            return known[close]
    return did_you_mean(path, FIELDS)


def _range(field: FieldInfo) -> str:
    limits: list[str] = []
    for item in field.metadata:
        match item:
            case Ge(ge=limit):
                limits.append(f"at least {limit:,}")
            case Gt(gt=limit):
                limits.append(f"above {limit:,}")
            case Le(le=limit):
                limits.append(f"at most {limit:,}")
            case Lt(lt=limit):
                limits.append(f"below {limit:,}")
    only = len(limits) == 2 and limits[0].removeprefix("at least ") == limits[1].removeprefix("at most ")
    return "can only be " + limits[0].removeprefix("at least ") if only else "must be " + " and ".join(limits)


def mistake_from(error: ErrorDetails, tree: Tree) -> Mistake:
    """One of pydantic's errors as a Mistake: dotted path with its origin, value, rule, remedy."""
    path = tuple(part for part in error["loc"] if isinstance(part, str))
    dotted, kind = ".".join(path), error["type"]
    found = find(tree, path)
    place = f"{dotted} ({found.origin})" if isinstance(found, Leaf) else dotted
    value = found.value if isinstance(found, Leaf) else None
    if kind == "missing":
        return Mistake(dotted, None, MISSING, f"set {dotted}: {FIELDS[dotted].description}".rstrip("."))
    if kind == "extra_forbidden":
        meant = suggestion(dotted)
        remedy = f"did you mean {meant}?" if meant else "`dynalign explain <config>` lists every setting"
        return Mistake(place, value, "is not a setting", remedy)
    if isinstance(found, dict) and kind != "model_type":
        return Mistake(dotted, None, "is one value, not a section", f"set {dotted}=<value>")
    if kind == "literal_error":
        choices = [str(choice) for choice in typing.get_args(FIELDS[dotted].annotation)]
        rule = f"can only be {choices[0]}" if len(choices) == 1 else f"must be one of {', '.join(choices)}"
        return Mistake(place, value, rule, f"set {dotted}={did_you_mean(str(value), choices) or choices[0]}")
    if kind == "string_pattern_mismatch":
        return Mistake(place, value, *PATTERNS[dotted])
    if kind in _TYPES:
        return Mistake(place, value, *_TYPES[kind])
    return Mistake(
        place,
        value,
        _range(FIELDS[dotted]),
        f"choose a value that fits: {FIELDS[dotted].description}".rstrip("."),
    )
