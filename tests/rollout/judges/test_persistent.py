"""Asking again: a failed call with the same question, an unreadable answer with another seed."""

import asyncio
from collections.abc import Iterator

import pytest

from dynalign.configs.errors import EndpointError
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.records import ParseStatus
from tests.worlds.scripted_askers import DOWN, asked, grade, made, questions

SAMPLED = {"kind": "external", "models": ("gpt",), "scorer": "sampled"}


def in_turn(*said: str | EndpointError) -> Iterator[str | EndpointError]:
    return iter(said)


@pytest.mark.parametrize(
    ("said", "failed", "unparsed", "status", "calls"),
    [
        ((DOWN, grade(3)), 1, 0, "parsed", 2),
        ((DOWN, DOWN), 1, 0, "unreachable", 2),
        ((DOWN,), 0, 5, "unreachable", 1),
        (("I say 5", grade(3)), 0, 1, "parsed", 2),
        (("I say 5",), 5, 0, "unparsed", 1),
        ((DOWN, "I say 5", grade(3)), 1, 1, "parsed", 3),
    ],
)
def test_failed_calls_and_unreadable_answers_are_asked_again_apart(
    contexts: Contexts,
    said: tuple[str | EndpointError, ...],
    failed: int,
    unparsed: int,
    status: ParseStatus,
    calls: int,
) -> None:
    turns = in_turn(*said)
    askers = asked(gpt=lambda question: next(turns))
    judge, _ = made(contexts, askers, **SAMPLED, failed_again=failed, unparsed_again=unparsed)
    (verdict,) = asyncio.run(judge.score("a task", ["an answer"], 3))
    assert verdict.status == status
    assert len(questions(askers, "gpt")) == calls


def test_a_failed_call_is_repeated_as_it_was_and_an_unreadable_answer_is_asked_for_with_another_seed(
    contexts: Contexts,
) -> None:
    turns = in_turn(DOWN, "I say 5", grade(3))
    askers = asked(gpt=lambda question: next(turns))
    judge, _ = made(contexts, askers, **SAMPLED, failed_again=1, unparsed_again=1)
    asyncio.run(judge.score("a task", ["an answer"], 3))
    first, repeated, anew = questions(askers, "gpt")
    assert first == repeated
    assert anew.seed != first.seed


def test_candidates_with_a_score_are_not_asked_about_again(contexts: Contexts) -> None:
    askers = asked(gpt=lambda question: DOWN if "bad" in question.messages[0].content else grade(3))
    judge, _ = made(contexts, askers, **SAMPLED, failed_again=2)
    verdicts = asyncio.run(judge.score("a task", ["good", "bad"], 3))
    assert [verdict.status for verdict in verdicts] == ["parsed", "unreachable"]
    assert len(questions(askers, "gpt")) == 1 + 3


def test_a_ranking_is_repeated_as_a_whole(contexts: Contexts) -> None:
    turns = in_turn(DOWN, '{"rationale": "", "order": [1, 2]}')
    judge, _ = made(contexts, asked(gpt=lambda question: next(turns)), kind="ranked", models=("gpt",))
    verdicts = asyncio.run(judge.score("a task", ["one", "two"], 3))
    assert sorted(verdict.score or 0.0 for verdict in verdicts) == [0.0, 5.0]
