"""The object in an answer: what is mended, and what is unreadable."""

import json

import pytest

from dynalign.endpoint.base import Answer
from dynalign.endpoint.structured import Unreadable, read_object

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "score": {"type": "integer", "minimum": 0, "maximum": 5},
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
)
GOOD = {"reason": "it {is} kind", "score": 4}


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "it {is} kind", "score": 4}',
        '```json\n{"reason": "it {is} kind", "score": 4}\n```',
        'Here it is: {"reason": "it {is} kind", "score": 4}. Anything else?',
        '{"reason": "it {is} kind", "score": 4,}',
        "{reason: \"it {is} kind\", 'score': 4}",
        '{"reason": "it {is} kind", "score": 4} and again {"score": 4, "reason": "it {is} kind"}',
        '{"note": 1} {"reason": "it {is} kind", "score": 4}',
    ],
)
def test_an_object_is_found_and_mended(text: str) -> None:
    assert read_object(Answer(text, "stop"), SCHEMA) == GOOD


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("I would say four.", "no JSON object"),
        ("", "no JSON object"),
        ("[4]", "no JSON object"),
        ("4", "no JSON object"),
        ('{"reason": "it is kind", "score": 4', "no end"),
        ('{"reason": "it is ki', "no end"),
        ('{"reason": "it is kind", "score": 9}', "obey the schema"),
        ('{"reason": "it is kind", "score": "4"}', "obey the schema"),
        ('{"reason": "it is kind"}', "obey the schema"),
        ('{"reason": "a", "score": 5} {"reason": "b", "score": 1}', "several objects"),
        ('{"reason": "a", "score": 5} {"reason": "b", "sco', "no end"),
        ("{" * 5000, "no end"),
        ("[" * 100000, "no JSON object"),
    ],
)
def test_what_is_not_there_is_not_invented(text: str, cause: str) -> None:
    found = read_object(Answer(text, "stop"), SCHEMA)
    assert isinstance(found, Unreadable)
    assert cause in found.cause


def test_an_answer_that_was_cut_off_or_refused_is_unreadable_whatever_it_holds() -> None:
    text = json.dumps(GOOD)
    assert isinstance(read_object(Answer(text, "length"), SCHEMA), Unreadable)
    assert isinstance(read_object(Answer(text, "refused"), SCHEMA), Unreadable)
