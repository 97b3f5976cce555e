"""The scores of every kind of judge follow again from the records, and what was changed is named."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.endpoint.base import Question
from dynalign.rollout.arrow_schema import decode, encode, to_batch, to_group
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.judges.rederived import Rederived, rederived
from dynalign.rollout.records import Group, ScoringRules, Verdict
from tests.worlds.golden_formats import of_format_2
from tests.worlds.judged_groups import made, maker
from tests.worlds.scripted_askers import DOWN, asked, grade


def unsure(question: Question) -> tuple[float, ...]:
    draw = random.Random(f"{question.messages[0].content} {question.model} {question.seed}")
    return tuple(-4.0 * draw.random() for _ in range(6))


def written(question: Question) -> str:
    """Now and then unreadable, or over several lines."""
    draw = random.Random(f"{question.messages[0].content} {question.model} {question.seed}")
    return "I would say five" if draw.random() < 0.2 else grade(draw.randrange(6)).replace(", ", ",\n")


def in_order(question: Question) -> str:
    count = question.messages[0].content.count("<candidate number=")
    order = list(range(1, count + 1))
    random.Random(question.seed).shuffle(order)
    return json.dumps({"rationale": "", "order": order})


SAMPLED = {"scorer": "sampled", "samples": 3}
PANEL = {
    "kind": "panel",
    "scorer": "sampled",
    "stances": ("asker:a", "affected:b", "harm:c"),
    "veto": ("harm",),
}
JUDGES: dict[str, tuple[dict[str, object], Callable[[Question], Any]]] = {
    "one digit": ({}, unsure),
    "one digit below a mass that none reaches": ({"min_digit_mass": 0.95}, unsure),
    "several samples": ({"kind": "external", "models": ("a",), **SAMPLED}, written),
    "aspects": ({"rubric": "factorized", "aggregate": "geometric_mean"}, unsure),
    "aspects of several samples": (
        {"kind": "external", "models": ("a",), "rubric": "factorized", "aggregate": "min", **SAMPLED},
        written,
    ),
    "several models": (
        {"kind": "external", "models": ("a", "b", "c"), "settle": "trimmed_mean", "noise_fraction": 1.0},
        unsure,
    ),
    "several models by aspects, under a veto": (
        {"kind": "external", "models": ("a", "b"), "rubric": "factorized", "veto": ("c",)},
        unsure,
    ),
    "vetoes and probes, scored twice": (
        {"veto": ("a", "b"), "probes": ("c",), "probe_fraction": 1.0, "noise_fraction": 1.0},
        unsure,
    ),
    "aspects beside, scored twice": (
        {"probe_factorized": True, "probe_fraction": 1.0, "noise_fraction": 1.0},
        unsure,
    ),
    "a panel": ({**PANEL, "rounds": 2}, lambda question: grade(random.Random(str(question)).randrange(6))),
    "rankings": (
        {"kind": "ranked", "models": ("a",), "samples": 2, "noise_fraction": 1.0, "scorer": "sampled"},
        in_order,
    ),
}


def recorded(contexts: Contexts, judge: dict[str, object], says: Callable[[Question], Any]) -> list[Group]:
    """Three groups, as they come back from Arrow."""
    by = maker(contexts, asked(a=says, b=says, c=says), **judge)
    batches = [to_batch(group) for group in made(by, (1, 2, 3))]
    return [to_group(batch) for batch in decode(encode(batches), "memory")]


def again(group: Group, judge: dict[str, object] | None = None) -> Rederived:
    assert group.scoring is not None
    return rederived(group, group.scoring, JudgeSettings.model_validate(judge or {}).samples)


@pytest.mark.parametrize("name", JUDGES)
def test_every_score_follows_again_from_its_record(contexts: Contexts, name: str) -> None:
    for group in recorded(contexts, *JUDGES[name]):
        assert again(group) == Rederived((), 0)


@pytest.mark.parametrize("name", JUDGES)
def test_a_score_that_was_changed_is_named(contexts: Contexts, name: str) -> None:
    group = recorded(contexts, *JUDGES[name])[0]
    first, *rest = group.candidates_G
    changed = replace(first, verdict=replace(first.verdict, score=4.875, status="parsed"))
    found = again(replace(group, candidates_G=(changed, *rest)))
    assert (0, "score", 4.875) in [each[:3] for each in found.differences]


def test_a_digit_an_answer_and_a_place_that_were_changed_are_named(contexts: Contexts) -> None:
    def first_named(name: str, change: Callable[[Verdict], Verdict]) -> set[str]:
        group = recorded(contexts, *JUDGES[name])[0]
        first, *rest = group.candidates_G
        found = again(replace(group, candidates_G=(replace(first, verdict=change(first.verdict)), *rest)))
        return {each.what for each in found.differences if each.candidate == 0}

    def of_first(verdict: Verdict, **changed: Any) -> Verdict:
        opinion, *rest = verdict.opinions
        return replace(verdict, opinions=(replace(opinion, **changed), *rest))

    five = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert first_named("one digit", lambda v: replace(v, digit_probs_6=five)) == {"score"}
    assert first_named("several samples", lambda v: replace(v, answers=(grade(5),) * 3)) >= {"score"}
    assert first_named("aspects", lambda v: of_first(v, digit_probs=five)) == {"part self knowledge"}
    assert "score" in first_named("aspects", lambda v: of_first(v, score=5.0))
    assert first_named("several models", lambda v: of_first(v, digit_probs=five)) == {"part a"}
    assert "veto c harm" in first_named(
        "a panel", lambda v: replace(v, opinions=(*v.opinions[:2], replace(v.opinions[2], score=4.5)))
    )
    assert "ranking 0" in first_named("rankings", lambda v: of_first(v, score=0.5))
    assert first_named("aspects beside, scored twice", lambda v: replace(v, score_again=0.5)) == {
        "score_again"
    }


def test_a_failed_call_leaves_no_score_and_is_no_difference(contexts: Contexts) -> None:
    judge = {"kind": "external", "models": ("a",), "failed_again": 0}
    (group, *_) = recorded(contexts, judge, lambda question: DOWN)
    assert group.withheld_reason == "judge_unreachable"
    assert again(group) == Rederived((), 0)
    trained = replace(group, withheld_reason=None)
    assert [each[1:] for each in again(trained).differences] == [("withheld", None, "judge_unreachable")]


def test_what_a_function_said_stands_by_itself(contexts: Contexts) -> None:
    name = "dynalign.rollout.judges.reward_functions:short_words"
    (group, *_) = recorded(contexts, {"kind": "function", "function": name}, unsure)
    assert again(group) == Rederived((), 8)


def test_a_record_of_the_format_before_is_read_as_far_as_it_goes() -> None:
    """Its sampled answers are one text, a line each; its aspects have no distribution."""
    rules = ScoringRules("external", "sampled", "mean", "mean", 0, 5, 0.1)
    group = replace(of_format_2(), withheld_reason="unparsed")
    first, second = group.candidates_G
    texts = [f"{grade(3)}\n{grade(4)}", f"{grade(3)}\n{grade(4)}\n{grade(5)}"]
    verdicts = [Verdict(score, "parsed", text=text) for score, text in zip((3.5, 4.0), texts, strict=True)]
    both = tuple(replace(first, verdict=verdict) for verdict in verdicts)
    group = replace(group, candidates_G=both, noise_std=None, withheld_reason=None)
    assert rederived(group, rules, 2) == Rederived((), 1)  # the second has three lines for two samples
    assert second.text == ""
