"""What one question shows before a run starts: an address, a key, a context, log-probabilities."""

import asyncio

import pytest

from dynalign.configs.errors import EndpointRefused, Mistake
from dynalign.configs.schema import RunSettings
from dynalign.rollout.judges.trial import trial_mistakes
from dynalign.rollout.judges.value_texts import texts_of
from tests.worlds.scripted_askers import DOWN, Says, asked, grade, questions, sure

REFUSED = EndpointRefused("http://judge/v1", "400: the question has 9,000 tokens, the context 8,192")


def tried(says: Says, **judge: object) -> list[Mistake]:
    run = RunSettings.model_validate({"name": "r", "model": "m", "judge": judge})
    return asyncio.run(trial_mistakes(run, texts_of(None, run.judge), asked(gpt=says)))


EXTERNAL = {"kind": "external", "models": ("gpt",)}


@pytest.mark.parametrize(
    ("says", "judge", "place", "rule"),
    [
        (lambda question: DOWN, EXTERNAL, "judge", "nothing answered"),
        (lambda question: REFUSED, EXTERNAL, "judge", "the context 8,192"),
        (lambda question: None, EXTERNAL, "judge.scorer", "gpt reports no log-probabilities"),
        (lambda question: DOWN, {"veto": ("gpt",)}, "judge", "nothing answered"),
        (lambda question: DOWN, {"kind": "ranked", "models": ("gpt",)}, "judge", "nothing answered"),
    ],
)
def test_an_endpoint_that_cannot_judge_is_one_line(
    says: Says, judge: dict[str, object], place: str, rule: str
) -> None:
    (mistake,) = tried(says, **judge)
    assert mistake.place == place
    assert rule in mistake.rule


def test_an_endpoint_that_answers_is_in_order() -> None:
    assert tried(lambda question: sure(3), **EXTERNAL) == []
    assert tried(lambda question: grade(3), **EXTERNAL, scorer="sampled") == []
    stances = {"kind": "panel", "stances": ("asker:gpt", "harm:gpt"), "scorer": "sampled"}
    assert tried(lambda question: grade(3), **stances) == []


def test_the_question_is_as_long_as_the_run_s_longest() -> None:
    run = RunSettings.model_validate(
        {"name": "r", "model": "m", "rollout": {"max_completion_tokens": 700}, "judge": EXTERNAL}
    )
    askers = asked(gpt=lambda question: sure(3))
    asyncio.run(trial_mistakes(run, texts_of(None, run.judge), askers))
    (question,) = questions(askers, "gpt")
    assert question.messages[0].content.count("word ") >= 700 + run.prompts.max_tokens - 2


def test_a_judge_that_asks_nobody_else_is_not_tried() -> None:
    assert tried(lambda question: DOWN) == []
