"""The agents as text files: the shipped ones are in order, one's own are checked."""

import json
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.dataset.agent_texts import AGENTS, load_agents
from tests.worlds.prompt_agents import own_agents


@pytest.mark.parametrize("kind", ["task", "dilemma"])
def test_the_shipped_agents_are_in_order(kind: str) -> None:
    assert set(load_agents(None, kind).of) == set(AGENTS)


def test_the_shipped_schemas_are_what_strict_servers_take() -> None:
    for kind in ("task", "dilemma"):
        for text in load_agents(None, kind).of.values():
            objects = [json.loads(text.json_schema)]
            while objects:
                each = objects.pop()
                assert each["additionalProperties"] is False
                assert set(each["required"]) == set(each["properties"])
                for inner in each["properties"].values():
                    assert inner["type"] != "string" or "maxLength" in inner
                    objects += [inner] if inner["type"] == "object" else []


def test_ones_own_agents_have_another_hash(tmp_path: Path) -> None:
    shipped = load_agents(None, "task")
    assert load_agents(str(own_agents(tmp_path / "same")), "task").content_hash == shipped.content_hash
    changed = own_agents(tmp_path / "other", goals_txt="Goal of {definition} in {cell}, please.")
    assert load_agents(str(changed), "task").content_hash != shipped.content_hash


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"writer_txt": "Write for {goal}, avoid {own_words}."}, "lacks the placeholder {cell}"),
        ({"critic_txt": "Is {prompt} of {definition} {nice}?"}, "{nice} is no placeholder"),
        ({"goals_txt": ""}, "is empty"),
        ({"goals_json": "{"}, "is no JSON schema"),
        ({"refine_json": '{"type": "object", "properties": {}}'}, "does not require 'prompt'"),
        ({"critic_json": load_agents(None, "task").of["critic"].json_schema.replace("integer", "string", 1)},
         "'deductions'"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_one_line(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_agents(str(own_agents(tmp_path / "mine", **changed)), "task")
    (mistake,) = refused.value.mistakes
    assert said in str(mistake), mistake


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_agents(str(tmp_path), "task")
    assert len(refused.value.mistakes) == 8


def test_what_is_put_in_is_not_searched_for_placeholders() -> None:
    text = load_agents(None, "task").of["writer"]
    message = text.message({"goal": "{cell}", "cell": "CELL", "own_words": "W"})
    assert "{cell}" in message
    assert "CELL" in message
