"""Whole groups under every kind of judge: failures move no mean, vetoes and probes are recorded, and only a
judge that asks the policy holds back a weight swap.

Simulated: the model, by the deterministic engine; judges, by a script. The group maker is the real one.
"""

import asyncio
import json
import math
import random
from pathlib import Path
from statistics import fmean, stdev

import pytest

from dynalign.endpoint.base import Answers, Question
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.group_maker import GroupTask
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.records import Group
from tests.worlds.chat_models import chat_tokenizer
from tests.worlds.judged_groups import PROMPT, a_score, made, maker
from tests.worlds.scripted_askers import DOWN, Says, asked, grade, sure


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer().save_pretrained(folder)
    return load_contexts(folder, "s", "2026-01-01")


@pytest.mark.parametrize("failing", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize(
    "judge",
    [
        {"kind": "external", "models": ("gpt",), "failed_again": 0},
        {"kind": "external", "models": ("gpt",), "failed_again": 1},
        {"kind": "external", "models": ("gpt",), "rubric": "factorized", "failed_again": 2},
        {"kind": "self", "veto": ("gpt",), "failed_again": 1},
    ],
    ids=["asked once", "asked twice", "four aspects", "as a veto"],
)
def test_failures_of_a_judge_move_the_mean_reward_by_no_more_than_chance(
    contexts: Contexts, failing: float, judge: dict[str, object]
) -> None:
    chance = random.Random(7)
    groups = range(30)
    whole = made(maker(contexts, asked(gpt=a_score), **judge), groups)
    flaky = asked(gpt=lambda question: DOWN if chance.random() < failing else a_score(question))
    broken = made(maker(contexts, flaky, **judge), groups)
    kept = [group for group in broken if group.withheld_reason is None]
    scores = [score for group in kept for score in group.scores_G if score is not None]
    true_scores = [score for group in whole for score in group.scores_G if score is not None]
    assert len(scores) > 30  # of 240
    assert abs(fmean(scores) - fmean(true_scores)) <= 2 * stdev(true_scores) / math.sqrt(len(scores))
    assert {group.withheld_reason for group in broken} <= {None, "judge_unreachable", "low_signal"}
    statuses = {c.verdict.status for group in broken for c in group.candidates_G}
    if failing != 0.1:  # so few may all be mended by the second try
        assert ("unreachable" in statuses) == (failing > 0.0)


def test_a_group_whose_judge_is_away_is_withheld_as_unreachable_and_says_why(
    contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    (away,) = made(maker(contexts, asked(gpt=lambda question: DOWN), kind="external", models=("gpt",)))
    unread = asked(gpt=lambda question: tuple([-9.0] * 6))
    (unreadable,) = made(maker(contexts, unread, kind="external", models=("gpt",)))
    assert (away.withheld_reason, unreadable.withheld_reason) == ("judge_unreachable", "unparsed")
    assert "group 3 has too few scores: http://judge/v1: nothing answered" in caplog.text


def test_the_judge_of_the_record_is_whoever_scored(contexts: Contexts) -> None:
    askers = asked(gpt=a_score, qwen=lambda question: sure(2))
    for judge, name in (
        ({}, "self"),
        ({"kind": "external", "models": ("gpt", "qwen")}, "gpt+qwen"),
        ({"kind": "function", "function": "dynalign.rollout.judges.reward_functions:short_words"},
         "dynalign.rollout.judges.reward_functions:short_words"),
    ):  # fmt: skip
        (group,) = made(maker(contexts, askers, **judge))
        assert (group.judge, group.judge_version) == (name, 4)


def test_a_veto_by_the_initial_policy_is_recorded_with_the_score_that_it_lowered(contexts: Contexts) -> None:
    (plain,) = made(maker(contexts, {}))
    (group,) = made(maker(contexts, asked(frozen=lambda question: sure(2)), veto=("frozen",)))
    for before, candidate in zip(plain.scores_G, group.candidates_G, strict=True):
        assert before is not None
        assert candidate.verdict.score == min(before, 2.0)
        assert [(o.judge, o.score, o.role) for o in candidate.verdict.opinions] == [
            ("self", before, "part"),
            ("frozen", 2.0, "veto"),
        ]


def test_probes_score_the_sampled_share_of_the_groups_and_change_no_score(contexts: Contexts) -> None:
    askers = asked(gpt=a_score)
    groups = range(40)
    plain = made(maker(contexts, askers), groups)
    probed = made(
        maker(contexts, askers, probes=("gpt",), probe_factorized=True, probe_fraction=0.25), groups
    )
    assert [group.scores_G for group in plain] == [group.scores_G for group in probed]
    opinions = [group.candidates_G[0].verdict.opinions for group in probed]
    sampled = [each for each in opinions if each]
    assert 3 <= len(sampled) <= 18
    for each in sampled:
        assert [(o.judge, o.rubric, o.role) for o in each] == [
            ("gpt", "", "probe"),
            ("self", "", "probe"),
            *(("self", aspect, "probe") for aspect in ("knowledge", "power", "vitality", "benevolence")),
        ]


def test_a_probe_that_fails_withholds_no_group(contexts: Contexts) -> None:
    askers = asked(gpt=lambda question: DOWN)
    (group,) = made(maker(contexts, askers, probes=("gpt",), probe_fraction=1.0))
    assert group.withheld_reason is None
    assert {o.status for c in group.candidates_G for o in c.verdict.opinions} == {"unreachable"}


def test_the_noise_of_a_ranking_is_measured_on_whole_groups(contexts: Contexts) -> None:
    def in_order(question: Question) -> str:
        count = question.messages[0].content.count("<candidate number=")
        return json.dumps({"rationale": "", "order": list(range(1, count + 1))})

    by = maker(contexts, asked(gpt=in_order), kind="ranked", models=("gpt",), noise_fraction=1.0)
    (group,) = made(by)
    again = [candidate.verdict.score_again for candidate in group.candidates_G]
    assert None not in again
    assert sorted(again, key=float) == sorted(group.scores_G, key=lambda score: score or 0.0)  # type: ignore[arg-type]
    assert again != list(group.scores_G)  # another shuffle, and the judge goes by the place
    assert group.noise_std is not None
    assert group.noise_std > 0.5


def test_a_held_out_answer_is_scored_under_the_veto_too(contexts: Contexts) -> None:
    by = maker(contexts, asked(frozen=lambda question: sure(0)), veto=("frozen",))
    assert asyncio.run(by.heldout(PROMPT, prompted=False)).score == 0.0


class SlowAsker:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def ask(self, question: Question) -> Answers:
        self.asked.set()
        await self.answer.wait()
        return await asked(gpt=a_score)["gpt"].asker.ask(question)


@pytest.mark.parametrize("judge", [{"kind": "external", "models": ("gpt",)}, {"veto": ("gpt",)}])
def test_no_weight_swap_waits_for_an_endpoint(contexts: Contexts, judge: dict[str, object]) -> None:
    async def swapped_meanwhile() -> Group:
        slow = SlowAsker()
        by = maker(contexts, {"gpt": AskedModel(slow, "GPT")}, **judge)
        making = asyncio.create_task(by.make(GroupTask(1, 3, 1, 0, PROMPT, 100.0)))
        async with asyncio.timeout(10):
            await slow.asked.wait()
            async with by.gate.swapping():
                slow.answer.set()
            return await making

    assert asyncio.run(swapped_meanwhile()).withheld_reason is None


def test_costs_of_judge_vetoes_and_probes_are_told_by_name(contexts: Contexts) -> None:
    says: dict[str, Says] = {"a": a_score, "b": a_score}
    by = maker(contexts, asked(**says), veto=("a",), probes=("b",), probe_fraction=1.0)
    made(by)
    costs = by.judge_costs()
    assert {name: cost.questions for name, cost in costs.items()} == {"self": 8, "a": 8, "b": 8}
    assert by.judgements == 24


def test_a_panel_scores_a_group(contexts: Contexts) -> None:
    stances = {"kind": "panel", "scorer": "sampled", "stances": ("asker:a", "harm:b"), "veto": ("harm",)}
    askers = asked(a=lambda q: grade(random.Random(q.messages[0].content).randrange(6)), b=lambda q: grade(4))
    (group,) = made(maker(contexts, askers, **stances, rounds=0))
    assert group.judge == "panel of asker, harm"
    assert max(score or 0.0 for score in group.scores_G) <= 4.0
