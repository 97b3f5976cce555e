"""The question that an endpoint is tried with, and the tokens that a pool holds: as a run's longest."""

import asyncio
from pathlib import Path

import pytest

from dynalign.configs.schema import RunSettings
from dynalign.endpoint.base import Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.deterministic import DeterministicEngine
from dynalign.rollout.engine_asker import EngineAsker
from dynalign.rollout.judges.base import judge_tokens
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.judges.trial import asks_for_grades, trial_question
from dynalign.rollout.judges.value_texts import texts_of
from tests.worlds.scripted_askers import LIMIT, ScriptedAsker, ScriptedEngine, grade, sure

KINDS: dict[str, dict[str, object]] = {
    "frozen": {"kind": "frozen", "pool": {}},
    "external": {"kind": "external", "models": ("gpt",), "scorer": "sampled", "samples": 2},
    "panel": {
        "kind": "panel",
        "stances": ("asker:gpt", "harm:gpt", "affected:frozen"),
        "scorer": "sampled",
        "rounds": 2,
        "max_rationale_tokens": 200,
    },
    "ranked": {"kind": "ranked", "models": ("gpt",)},
}


def run_of(kind: str) -> RunSettings:
    rollout = {"max_completion_tokens": 100, "group_size": 4}
    values = {"name": "r", "model": "m", "rollout": rollout, "prompts": {"max_tokens": 60}}
    return RunSettings.model_validate(values | {"judge": KINDS[kind]})


def said(question: Question) -> str | tuple[float, ...]:
    """An answer as long as it may be, and another one each time: the panel goes on to its last round."""
    if question.choices:
        return sure(3)
    reason = "r" * (question.max_tokens - 30)
    order = '{"rationale": "because", "order": [1, 2, 3, 4]}'
    return order if "order" in (question.json_schema or "") else grade((question.seed or 0) % 6, reason)


def asked_by(kind: str, contexts: Contexts, letter: str) -> list[Question]:
    """Every question about a group of the longest candidates to the longest prompt. letter: their text."""
    run = run_of(kind)
    asker = ScriptedAsker(said)
    askers = {name: AskedModel(asker, "GPT") for name in ("gpt", "frozen")}
    texts = texts_of(None, run.judge)
    judge = make_judge(ScriptedEngine(), contexts, texts, run.judge, LIMIT, askers)
    candidates = [letter * run.rollout.max_completion_tokens for _ in range(run.rollout.group_size)]
    asyncio.run(judge.score(letter * run.prompts.max_tokens, candidates, 3))
    return asker.questions


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_pool_with_as_many_tokens_answers_every_question_of_the_run(
    kind: str, contexts: Contexts, tmp_path: Path
) -> None:
    run = run_of(kind)
    limit = judge_tokens(contexts, texts_of(None, run.judge), run)
    size = len(contexts.tokenizer)
    engine = DeterministicEngine(range(size // 2, size), contexts.tokenizer.eos_token_id, "0.0")
    pool = EngineAsker("GPT", engine, contexts, limit)
    questions = asked_by(kind, contexts, "x")
    assert questions
    for question in questions:
        asyncio.run(pool.ask(question))  # a longer one is refused
    longest = max(len(contexts.judge_context(each.messages[0].content, each.prefill)) for each in questions)
    assert limit < 2 * longest + 400  # and it is no idle bound


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_trial_is_about_as_long_as_the_longest_question_and_of_its_kind(
    kind: str, contexts: Contexts
) -> None:
    run = run_of(kind)
    trial = trial_question(run, texts_of(None, run.judge), "GPT")
    questions = asked_by(kind, contexts, "word ")
    longest = max(questions, key=lambda question: len(question.messages[0].content))
    assert len(trial.messages[0].content) > 0.9 * len(longest.messages[0].content)
    assert (trial.model, bool(trial.choices)) == ("GPT", bool(longest.choices))
    assert bool(trial.choices) == asks_for_grades(run)
    assert (trial.n, trial.max_tokens) == (longest.n, longest.max_tokens)
