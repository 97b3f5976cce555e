"""What the figures say of judges of known worth."""

import asyncio
import json
from dataclasses import asdict
from statistics import fmean

import pytest

from dynalign.evaluation.judge_check.asking import ask
from dynalign.evaluation.judge_check.bar import reaches_bar
from dynalign.evaluation.judge_check.card import CardFacts, as_json, make_card, passes
from dynalign.evaluation.judge_check.figures import JudgeFigures, agreement, judge_figures
from dynalign.evaluation.judge_check.seconds import MemberAnswers
from dynalign.evaluation.judge_check.sheet import (
    AskedGroup,
    GivenScores,
    GoodAnswers,
    JudgeAnswers,
    sheet,
)
from dynalign.rollout.prompts import Prompt
from tests.worlds.scripted_judges import (
    CONSTANT,
    FIRST_PLACE,
    HALF_READABLE,
    LENGTH,
    PERFECT,
    RANDOM,
    UNREADABLE,
    ScriptedJudge,
    good_answer,
    noisy,
)

TOPICS = (
    "nets",
    "maps",
    "wells",
    "roofs",
    "boats",
    "hedges",
    "clocks",
    "kilns",
    "looms",
    "bells",
    "carts",
    "locks",
)
SIZE = 8
"""Candidates per group."""


def groups() -> tuple[AskedGroup, ...]:
    """Twelve prompts. Candidate i of a group is worth i/2 points to the judges that read its number."""
    prompts = [Prompt(topic, f"How do I care for {topic}", "", "heldout") for topic in TOPICS]
    candidates = {topic: [f"{number} for {topic}" for number in range(SIZE)] for topic in TOPICS}
    return sheet(
        prompts, candidates, GoodAnswers({topic: good_answer(topic) for topic in TOPICS}, {}), seed=5
    )


def answers(judge: ScriptedJudge, name: str = "scripted") -> JudgeAnswers:
    return asyncio.run(ask(judge, name, groups(), seed=1, in_flight=4))


def figures(judge: ScriptedJudge) -> JudgeFigures:
    return judge_figures(groups(), answers(judge))


def worth(text: str) -> float:
    """Of a candidate: its number in half points."""
    return int(text.split()[0]) / 2 if text[:1].isdigit() else 2.5


def test_a_perfect_judge_is_above_the_bar_and_says_so_with_an_interval() -> None:
    found = figures(PERFECT)
    assert found.overall.auc is not None
    assert found.overall.auc.mean == 1
    assert found.overall.auc.low is not None
    assert 0.6 < found.overall.auc.low < 1
    assert passes(found)
    # A cut answer lacks steps that a shuffled one has; of another topic or empty, it is worth the same here.
    assert [pair.auc.mean for pair in found.adjacent if pair.auc] == [1, 0, 1, 0.5]
    means = dict(found.tiers)
    assert means["good"] is not None
    assert means["good"].mean == pytest.approx(4.8)
    assert (found.unread, found.unread_example) == (0, None)


def test_a_perfect_judge_is_moved_by_no_other_form_of_an_answer() -> None:
    found = figures(PERFECT)
    assert [each.name for each in found.variants] == [
        "white space",
        "markdown",
        "bullets",
        "padding",
        "duplicate",
    ]
    for each in found.variants:
        assert each.change.size is not None
        assert (each.change.size.mean, each.flips.share) == (0, 0)


def test_a_random_judge_is_below_the_bar_and_its_interval_holds_one_half() -> None:
    found = figures(RANDOM)
    assert found.overall.auc is not None
    assert found.overall.auc.low is not None
    assert found.overall.auc.high is not None
    assert found.overall.auc.low < 0.5 < found.overall.auc.high
    assert not passes(found)
    assert found.reliability is not None
    assert found.reliability.of_one is not None
    assert found.reliability.of_one.low is not None
    assert found.reliability.of_one.low < 0 < (found.reliability.of_one.high or 0)


def test_a_length_judge_is_raised_by_padding_and_blind_to_order() -> None:
    found = figures(LENGTH)
    by_name = {each.name: each for each in found.variants}
    padding = by_name["padding"].change
    assert padding.size is not None
    assert padding.shift is not None
    assert padding.shift.mean == padding.size.mean > 1.5
    assert by_name["padding"].flips.up == len(TOPICS)
    assert by_name["padding"].flips.p < 0.001
    to_half, half_to_shuffled = (pair.auc.mean for pair in found.adjacent[:2] if pair.auc)
    assert (to_half, half_to_shuffled) == (1, 0)
    assert not passes(found), "it cannot tell shuffled sentences from those in order"


def test_a_judge_that_always_says_3_has_no_reliability_and_half_an_auc() -> None:
    found = figures(CONSTANT)
    assert found.overall.auc is not None
    assert found.overall.auc.mean == 0.5
    assert not passes(found)
    assert found.reliability is not None
    assert (found.reliability.of_one, found.reliability.noise_std, found.samples_needed) == (None, 0, None)


def test_planted_noise_is_found_with_the_samples_that_it_asks_for() -> None:
    found = judge_figures(groups(), answers(noisy(0.6, worth)))
    # The numbers 0 to 7 in half points have a variance of 6/4.
    expected = 1.5 / (1.5 + 0.36)
    assert found.reliability is not None
    assert found.reliability.noise_std == pytest.approx(0.6, abs=0.1)
    assert found.reliability.of_one is not None
    assert found.reliability.of_one.mean == pytest.approx(expected, abs=0.06)
    assert found.samples_needed == 1
    low, high = found.samples_needed_range
    assert low is not None
    assert high is not None
    assert low <= 1 <= high


def test_a_judge_that_scores_the_place_is_found_out() -> None:
    found = figures(FIRST_PLACE)
    assert found.position is not None
    assert found.position.mean == pytest.approx(0.25 * (SIZE - 1))
    alone = figures(PERFECT).position
    assert alone is not None
    assert alone.mean == 0


def test_what_cannot_be_read_is_counted_and_left_out() -> None:
    found = figures(UNREADABLE)
    assert found.unread == found.scores > 0
    assert found.unread_example == "I would rather not say."
    assert (found.overall.auc, found.reliability, found.position) == (None, None, None)
    assert not passes(found)
    half = figures(HALF_READABLE)
    assert 0.4 < half.unread / half.scores < 0.6
    assert half.overall.auc is not None
    assert half.overall.auc.mean == 1
    assert not passes(half)


def test_the_bar_needs_the_figure_its_lower_end_and_readable_scores() -> None:
    assert reaches_bar(0.75, 0.61, 0.05)
    assert not reaches_bar(0.74, 0.7, 0)
    assert not reaches_bar(0.8, 0.6, 0)
    assert not reaches_bar(None, None, 0)
    assert not reaches_bar(0.9, None, 0)
    assert not reaches_bar(0.9, 0.8, 0.06), "in training, groups with too few scores are withheld"


def test_alpha_sees_the_scores_tau_their_order_alone() -> None:
    by_number = ScriptedJudge(lambda prompt, text, place, rng: worth(text))
    squared = ScriptedJudge(lambda prompt, text, place, rng: worth(text) ** 2 / 5)
    same = agreement(groups(), [answers(by_number, "number"), answers(by_number, "again")])
    assert same is not None
    assert same.alpha is not None
    assert same.alpha.mean == 1
    lower = agreement(groups(), [answers(by_number, "number"), answers(squared, "square")])
    assert lower is not None
    assert lower.alpha is not None
    assert lower.alpha.mean < 0.8
    (pair,) = lower.pairs
    assert (pair.first, pair.second) == ("number", "square")
    assert pair.tau.correlation is not None
    assert (pair.tau.correlation.mean, pair.tau.groups) == (1, len(TOPICS))


def test_judges_that_do_not_agree_are_seen_and_groups_without_spread_counted() -> None:
    by_number = ScriptedJudge(lambda prompt, text, place, rng: worth(text))
    apart = agreement(
        groups(), [answers(by_number, "number"), answers(RANDOM, "random"), answers(CONSTANT, "3")]
    )
    assert apart is not None
    assert apart.alpha is not None
    assert apart.alpha.mean < 0.4
    assert [pair.tau.without_spread for pair in apart.pairs] == [0, len(TOPICS), len(TOPICS)]
    assert agreement(groups(), [answers(RANDOM)]) is None


def facts() -> CardFacts:
    return CardFacts("quickstart", "tiny", len(TOPICS), SIZE, "the test's", "none", "none", "2026-12-01")


def alone(judged: JudgeAnswers) -> MemberAnswers:
    """A judge without second judges."""
    return MemberAnswers(judged.judge, judged, (), (), 0.0)


def test_the_figures_in_the_json_follow_from_the_texts_and_scores_beside_them() -> None:
    judged = [answers(noisy(0.6, worth), "noisy"), answers(HALF_READABLE, "half")]
    content = json.loads(as_json(make_card(facts(), groups(), [alone(each) for each in judged], [1, 4])))
    asked = [AskedGroup(**{**group, "names_G": tuple(group["names_G"])}) for group in content["groups"]]
    again = [
        JudgeAnswers(
            each["judge"],
            tuple(GivenScores(tuple(given["scores_G"]), tuple(given["again_G"])) for given in each["given"]),
            each["seconds"],
            each["unread"],
        )
        for each in content["answers"]
    ]
    for found, each, samples in zip(content["judges"], again, (1, 4), strict=True):
        reached = found.pop("reaches_bar")
        made = judge_figures(asked, each, samples)
        assert json.loads(json.dumps(asdict(made))) == found
        assert reached == passes(made)
    made_agreement = agreement(asked, again)
    assert made_agreement is not None
    assert json.loads(json.dumps(asdict(made_agreement))) == content["agreement"]
    # And one of them by hand: the mean score of the good answers.
    good = [
        given["scores_G"][group["names_G"].index("good")]
        for group, given in zip(content["groups"], content["answers"][0]["given"], strict=True)
        if group["kind"] == "tiers"
    ]
    assert dict(content["judges"][0]["tiers"])["good"]["mean"] == pytest.approx(fmean(good))


def test_progress_is_told_and_a_group_waits_while_others_are_scored() -> None:
    told: list[int] = []
    running = 0
    most = 0

    class Counting:
        async def score(self, prompt: str, texts_G: object, seed: int, fresh: bool = False) -> list[object]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return list(await CONSTANT.score(prompt, list(texts_G), seed))  # type: ignore[call-overload]

    asyncio.run(ask(Counting(), "counting", groups(), 1, in_flight=3, progress=told.append))  # type: ignore[arg-type]
    assert told == list(range(1, len(groups()) + 1))
    assert most == 3
