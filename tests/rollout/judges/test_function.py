"""A user's own function: what it may be, and what becomes of each mistake in it."""

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from dynalign.configs.errors import UserError
from dynalign.rollout.judges import function as module
from dynalign.rollout.judges.function import FunctionJudge, RewardFunction, load_function
from dynalign.rollout.records import Verdict

HERE = __name__


def scored(function: RewardFunction, texts_G: list[str], deadline_s: float = 10.0) -> list[Verdict]:
    judge = FunctionJudge(function, "mine:f", deadline_s)
    return asyncio.run(judge.score("p", texts_G, 0))


def test_a_plain_function_scores_each_candidate_and_an_empty_one_is_marked() -> None:
    verdicts = scored(lambda prompt, completion: len(completion), ["abc", ""])
    assert [(verdict.score, verdict.status) for verdict in verdicts] == [(3.0, "parsed"), (0.0, "empty")]


def test_an_async_function_is_awaited_always_in_one_loop() -> None:
    loops = set()

    async def slow(prompt: str, completion: str) -> float:
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0.01)
        return 2.0

    judge = FunctionJudge(slow, "mine:f")
    for _ in range(2):
        verdicts = asyncio.run(judge.score("p", ["a", "b"], 0))
        assert [verdict.score for verdict in verdicts] == [2.0, 2.0]
    assert len(loops) == 1


def longest_first(prompt: str, completions: list[str]) -> list[float]:
    ranked = sorted(completions, key=len)
    return [float(ranked.index(text)) for text in completions]


def test_a_function_whose_second_parameter_is_completions_sees_the_group() -> None:
    judge = FunctionJudge(longest_first, "mine:f")
    verdicts = asyncio.run(judge.score("p", ["ccc", "a", "bb"], 0))
    assert ([verdict.score for verdict in verdicts], judge.compares) == ([2.0, 0.0, 1.0], True)


def test_an_async_function_may_see_the_group_too() -> None:
    async def group(prompt: str, completions: list[str]) -> list[float]:
        return [1.0 for _ in completions]

    assert [verdict.score for verdict in scored(group, ["a", "b"])] == [1.0, 1.0]


@pytest.mark.parametrize("score", [7.0, -1, math.nan, math.inf, None, "5", True, [5.0]])
def test_what_is_no_score_is_an_unparsed_verdict_with_its_cause(score: Any) -> None:
    (verdict,) = scored(lambda prompt, completion: score, ["x"])
    assert (verdict.score, verdict.status) == (None, "unparsed")
    assert f"judge.function mine:f returned {score!r}; return a finite number from 0 to 5" == verdict.text


@pytest.mark.parametrize("found", [[1.0], [1.0, 2.0, 3.0], "ab", 3.0, None, {"a": 1.0, "b": 2.0}])
def test_a_list_of_the_wrong_length_or_none_at_all_gives_no_candidate_a_score(found: Any) -> None:
    def group(prompt: str, completions: list[str]) -> Any:
        return found

    verdicts = scored(group, ["a", "b"])
    assert {(verdict.score, verdict.status) for verdict in verdicts} == {(None, "unparsed")}
    assert "for 2 completions; return a list with a number for each" in (verdicts[0].text or "")


def test_one_wrong_score_in_a_list_takes_no_other_candidate_s_score_away() -> None:
    def group(prompt: str, completions: list[str]) -> list[Any]:
        return [1.0, math.nan, "3"]

    statuses = [verdict.status for verdict in scored(group, ["a", "b", "c"])]
    assert statuses == ["parsed", "unparsed", "unparsed"]


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [KeyError("y"), OwnError("no sandbox"), SystemError("x"), MemoryError()])
def test_a_function_that_raises_is_a_failed_call_of_that_candidate_and_ends_no_worker(
    error: Exception,
) -> None:
    def odd(prompt: str, completion: str) -> float:
        if completion == "y":
            raise error
        return 1.0

    verdicts = scored(odd, ["x", "y"])
    assert [(verdict.score, verdict.status) for verdict in verdicts] == [
        (1.0, "parsed"),
        (None, "unreachable"),
    ]
    assert f"raised {type(error).__name__}" in (verdicts[1].text or "")


def test_a_function_that_blocks_is_given_up_at_its_deadline_and_the_engine_s_loop_goes_on() -> None:
    def blocks(prompt: str, completion: str) -> float:
        time.sleep(0.5)
        return 1.0

    async def beside() -> tuple[list[Verdict], int]:
        beats = 0
        judging = asyncio.create_task(FunctionJudge(blocks, "mine:f", 0.1).score("p", ["x"], 0))
        while not judging.done():
            await asyncio.sleep(0.01)
            beats += 1
        return judging.result(), beats

    (verdict,), beats = asyncio.run(beside())
    assert verdict.status == "unreachable"
    assert verdict.text == "judge.function mine:f has not returned after 0.1 s (judge.function_s)"
    assert beats > 2


def test_an_async_function_that_waits_for_ever_is_cancelled_at_its_deadline() -> None:
    ended = threading.Event()

    async def waits(prompt: str, completion: str) -> float:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return 1.0

    (verdict,) = scored(waits, ["x"], deadline_s=0.3)
    assert verdict.status == "unreachable"
    assert ended.wait(5.0)


def test_after_some_calls_that_block_for_good_no_other_is_begun() -> None:
    begun = []

    def blocks(prompt: str, completion: str) -> float:
        begun.append(completion)
        time.sleep(1.0)
        return 1.0

    verdicts = scored(blocks, [str(number) for number in range(12)], deadline_s=0.01)
    assert {verdict.status for verdict in verdicts} == {"unreachable"}
    assert len(begun) <= module._MOST_BLOCKED
    assert "no other is begun" in (verdicts[-1].text or "")


def test_calls_and_failures_are_counted_with_their_seconds() -> None:
    judge = FunctionJudge(lambda prompt, completion: {"x": 1.0}[completion], "mine:f")
    asyncio.run(judge.score("p", ["x", "y"], 0))
    cost = judge.costs()["mine:f"]
    assert (cost.questions, cost.failed, cost.prompt_tokens, cost.money) == (2, 1, 0, None)
    assert cost.seconds > 0.0


@pytest.mark.parametrize("name", ["nowhere:f", "math", "math:nothing", "math:pi", ""])
def test_a_function_that_cannot_be_imported_is_the_users_mistake(name: str) -> None:
    with pytest.raises(UserError, match=r"judge\.function"):
        load_function(name)


def one_argument(prompt: str) -> float:
    return 0.0


def three_arguments(prompt: str, completion: str, truth: str) -> float:
    return 0.0


@pytest.mark.parametrize("name", ["one_argument", "three_arguments"])
def test_a_function_that_does_not_take_a_prompt_and_a_completion_is_refused_before_it_is_called(
    name: str,
) -> None:
    with pytest.raises(UserError, match="cannot be called with a prompt and a completion"):
        load_function(f"{HERE}:{name}")
    assert load_function(f"{HERE}:longest_first") is longest_first
