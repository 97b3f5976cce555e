"""The JSON object in an answer, checked against the schema that was asked for.

A server that takes a schema returns nothing else. From another one comes an object between other words, in a
fence, or with a comma too much: `json-repair` mends what is there, and the schema decides. What is not there
is not invented: an answer that ended before its object did is unreadable.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import json_repair
from jsonschema import Draft202012Validator

from dynalign.endpoint.base import Answer


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An answer without the object that was asked for. It is not a failed call, and it is no score.

    Example: `Unreadable("it was cut off at the most tokens of an answer")`.
    """

    cause: str
    """A clause without the answer's text."""


def read_object(answer: Answer, json_schema: str) -> dict[str, Any] | Unreadable:
    """The one object in the answer that obeys the schema, which is JSON. Two that differ are none: one of
    them may be quoted from the text that was judged."""
    if answer.finish_reason == "length":
        return Unreadable("it was cut off at the most tokens of an answer")
    if answer.finish_reason == "refused":
        return Unreadable("the model or its server declined to answer")
    validator = _validator(json_schema)
    try:
        whole = json.loads(answer.text)
    except (ValueError, RecursionError):
        whole = None
    if whole is not None:
        return _checked([whole], validator)
    parts = [*_objects(answer.text)]
    if parts and parts[-1] is None:
        return Unreadable("its object has no end")
    mended = [json_repair.loads(part) for part in parts if part is not None]
    return _checked(mended, validator)


@lru_cache(maxsize=64)
def _validator(json_schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(json_schema))


def _checked(found: list[Any], validator: Draft202012Validator) -> dict[str, Any] | Unreadable:
    objects = [each for each in found if isinstance(each, dict)]
    if not objects:
        return Unreadable("it holds no JSON object")
    valid = [each for each in objects if validator.is_valid(each)]
    if not valid:
        return Unreadable("its object does not obey the schema")
    if any(each != valid[0] for each in valid):
        return Unreadable("it holds several objects that obey the schema")
    return valid[0]


def _objects(text: str) -> Iterator[str | None]:
    """The text of every outermost object, from `{` to its `}`; None for one without end, which is the last.
    Braces inside strings do not count."""
    depth = 0
    start = 0
    in_string = False
    escaped = False
    for place, character in enumerate(text):
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"' and depth:
            in_string = True
        elif character == "{":
            start = place if depth == 0 else start
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                yield text[start : place + 1]
    if depth:
        yield None
