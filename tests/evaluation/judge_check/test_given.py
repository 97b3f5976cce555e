"""Good answers from a file."""

import json
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.evaluation.judge_check.given import given_answers
from dynalign.rollout.prompts import Prompt

PROMPTS = (Prompt("7", "How do I mend a net?", "", "heldout"), Prompt("b", "Where is north?", "", "heldout"))


def written(folder: Path, *rows: object) -> str:
    file = folder / "answers.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


def test_an_answer_is_found_by_the_prompts_id_or_text(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        {"id": 7, "answer": "With a needle.", "paraphrase": "By needle."},
        {"prompt": " Where is north?", "answer": "Up the hill."},
        {"prompt": "Another one", "answer": "Nobody asked."},
        {"id": "b"},
    )
    found = given_answers(source, PROMPTS)
    assert found.answers == {"7": "With a needle.", "b": "Up the hill."}
    assert found.paraphrases == {"7": "By needle."}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"id": "7", "answer": 5}], "'answer' is no text"),
        ([{"id": "7", "answer": "half a pair: \ud800"}], "'answer' is no text"),
        ([{"id": "7", "answer": "Yes.", "paraphrase": ["a"]}], "'paraphrase' is no text"),
        ([{"id": "z", "answer": "Yes."}], "answers none of the 2 held-out prompts"),
        ([{"id": "7", "answer": " "}], "answers none of the 2 held-out prompts"),
        ([["7", "Yes."]], "not a JSON object"),
        ([], "answers none of the 2 held-out prompts"),
    ],
)
def test_a_file_without_answers_is_refused_in_one_line(
    tmp_path: Path, rows: list[object], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        given_answers(written(tmp_path, *rows), PROMPTS)
    assert len(refused.value.mistakes) == 1


def test_a_file_of_another_kind_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.jsonl file"):
        given_answers("answers.csv", PROMPTS)
    with pytest.raises(UserError, match="cannot be read"):
        given_answers(str(tmp_path / "absent.jsonl"), PROMPTS)
