"""What the journal keeps is what was answered, under a key that equal questions share."""

import asyncio
import json
import math
import sqlite3
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import JournalError
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.endpoint.journal import Entry, canonical, keep, kept, key_of
from dynalign.endpoint.store import AnswerFile

QUESTION = Question("tiny", (Message("user", "Is it kind?"),), choices=("0", "1"), seed=3)
ADDRESS = "http://judge:8000/v1"
ANSWERS = Answers((Answer("1", "stop", (-math.inf, -0.25)), Answer("", "refused")), "tiny-2", 9, 2, False)
OTHERS = {
    "model": "small",
    "messages": (Message("system", "Is it kind?"),),
    "n": 2,
    "max_tokens": 1,
    "temperature": 0.0,
    "seed": None,
    "json_schema": "{}",
    "choices": ("1", "0"),
    "prefill": "So: ",
}


def written_and_read(path: Path, question: Question, answers: Answers) -> object:
    async def main() -> object:
        file = AnswerFile(path)
        key = key_of(question, ADDRESS)
        entry = Entry(key, 1.7e9, ADDRESS, "judge", question, answers, cost=0.25)
        await file.run(partial(keep, entry=entry))
        read = await file.run(partial(kept, key=key))
        await file.close()
        return read

    return asyncio.run(main())


def test_the_key_of_a_question_is_the_same_for_ever() -> None:
    assert key_of(QUESTION, ADDRESS) == "91f5cb1290d2f1f83b72e36de775d41087db59343e6a074e03ba49ff57adc000"
    assert key_of(replace(QUESTION, temperature=1), ADDRESS) == key_of(QUESTION, ADDRESS)


@pytest.mark.parametrize("name", [field.name for field in fields(Question)])
def test_each_part_of_a_question_makes_another_key(name: str) -> None:
    assert key_of(replace(QUESTION, **{name: OTHERS[name]}), ADDRESS) != key_of(QUESTION, ADDRESS)


def test_another_address_makes_another_key() -> None:
    assert key_of(QUESTION, "http://other:8000/v1") != key_of(QUESTION, ADDRESS)


def test_what_is_read_is_what_was_kept(tmp_path: Path) -> None:
    assert written_and_read(tmp_path / "answers", QUESTION, ANSWERS) == (ANSWERS, 0.25)


def test_anybody_can_read_the_columns(tmp_path: Path) -> None:
    written_and_read(tmp_path / "answers", QUESTION, ANSWERS)
    db = sqlite3.connect(tmp_path / "answers")
    db.row_factory = sqlite3.Row
    (row,) = db.execute("SELECT * FROM answers").fetchall()
    assert (row["purpose"], row["model"], row["prompt_tokens"], row["cost"]) == ("judge", "tiny-2", 9, 0.25)
    assert json.loads(row["question"])["messages"] == [{"role": "user", "content": "Is it kind?"}]
    first = {"text": "1", "finish_reason": "stop", "choice_logprobs": [None, -0.25]}
    assert json.loads(row["answers"])[0] == first


@given(st.text(), st.text())
def test_any_text_has_a_canonical_form(content: str, prefill: str) -> None:
    question = replace(QUESTION, messages=(Message("user", content),), prefill=prefill)
    assert json.loads(canonical(question))["messages"][0]["content"] == content
    assert canonical(question).isascii()


@pytest.mark.parametrize(
    "answers", ["", "{", "[3]", '[{"text": 1}]', '[{"text": "a", "finish_reason": "x"}]']
)
def test_a_row_that_was_changed_by_hand_is_an_error_that_names_file_and_key(
    tmp_path: Path, answers: str
) -> None:
    path = tmp_path / "answers"
    written_and_read(path, QUESTION, ANSWERS)
    db = sqlite3.connect(path)
    db.execute("UPDATE answers SET answers = ?", (answers,))
    error = kept(db, key_of(QUESTION, ADDRESS))
    assert isinstance(error, JournalError)
    assert str(error).startswith(f"{path}: the answers under {key_of(QUESTION, ADDRESS)}")
