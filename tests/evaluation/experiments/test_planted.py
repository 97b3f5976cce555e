"""Answers with a planted bias, and by how much it raises what a judge gives."""

import math
from collections.abc import Mapping

import pytest

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.evaluation.experiments import verifiable_value
from dynalign.evaluation.experiments.planted import (
    BIASES,
    PRAISE,
    PlantedAnswer,
    planted_answers,
    planted_lift,
    score_by,
)
from dynalign.rollout.judges.reward_functions import short_words
from dynalign.run_folder.heldout import HeldoutItem

ANSWERS = [PlantedAnswer("a", "Why?", "By days. Then rest."), PlantedAnswer("b", "How?", "Ask a friend.")]


def test_a_bias_leaves_every_word_of_the_answer() -> None:
    for bias in BIASES:
        for answer in ANSWERS:
            biased = answer.biased(bias)
            assert biased != answer.text
            assert set(answer.text.split()) <= set(biased.split())


def test_the_answers_are_those_of_the_first_evaluation_that_have_a_text() -> None:
    rows = [(0, "a", False, "Yes."), (0, "b", False, " "), (0, "a", True, "No."), (3, "a", False, "Later.")]
    items = [HeldoutItem(step, 1, name, "Q", s, 1.0, text, 2, False) for step, name, s, text in rows]
    assert planted_answers(items) == [PlantedAnswer("a", "Q", "Yes.")]
    assert planted_answers([]) == []


ASPECT_SCORES = {"whole": 3.0, "knowledge": 1.0, "power": 4.0}


@pytest.mark.parametrize(
    ("rubric", "aggregate", "score"),
    [
        ("unified", "mean", 3.0),
        ("factorized", "mean", 2.5),
        ("factorized", "min", 1.0),
        ("factorized", "geometric_mean", 2.0),
    ],
)
def test_an_arm_s_score_is_made_of_the_rubrics_by_its_own_rule(
    rubric: str, aggregate: str, score: float
) -> None:
    judge = JudgeSettings.model_validate({"rubric": rubric, "aggregate": aggregate})
    assert score_by(judge, ASPECT_SCORES) == pytest.approx(score)
    lacking = {"whole": None, "knowledge": 2.0, "power": None}
    assert score_by(judge, lacking) is None


def test_the_lift_is_the_mean_rise_over_the_biases_of_answers_with_every_score() -> None:
    def scores(prompt: str, text: str) -> Mapping[str, float | None] | None:
        if prompt == "How?" and text.startswith("#"):
            return {"whole": None}
        return {"whole": 1.0 + 1.5 * (PRAISE in text) - 0.6 * text.startswith("#")}

    lift = planted_lift(JudgeSettings(), ANSWERS, scores)
    assert lift.by_prompt == pytest.approx({"a": 0.3})
    assert lift.by_bias == pytest.approx({"verbosity": 0.0, "self_praise": 1.5, "format": -0.6})
    assert lift.over(0.25) == pytest.approx(0.3 / math.sqrt(0.25))
    assert lift.over(None) is None
    nothing = planted_lift(JudgeSettings(), ANSWERS, lambda prompt, text: None)
    assert (nothing.by_prompt, nothing.by_bias, nothing.over(1.0)) == ({}, {}, None)


def test_the_counted_judges_are_fooled_by_the_planted_share_alone() -> None:
    """Worked by hand: 8 of the 64 words that are long, no praise, no form: a shortcut of (8/64)/3."""
    text = "one two three four five six seven one"
    aspects = {name: of("", text) for name, of in verifiable_value.ASPECTS.items()}
    assert aspects == pytest.approx(
        {"short words": short_words("", text), "variety": 5 * 7 / 8, "plainness": 5.0, "brevity": 5 * 16 / 24}
    )
    clean = sum(aspects.values()) / 4
    assert verifiable_value.whole("", text) == pytest.approx(clean)
    extra = 5 * (8 / 64) / 3
    assert verifiable_value.unified("", text) == pytest.approx(0.5 * clean + 0.5 * extra)
    fooled = aspects | {"variety": 0.5 * 5 * 7 / 8 + 0.5 * extra}
    assert verifiable_value.aspects_mean("", text) == pytest.approx(sum(fooled.values()) / 4)
    assert verifiable_value.aspects_min("", text) == pytest.approx(min(fooled.values()))
    product = math.prod(fooled.values())
    assert verifiable_value.aspects_geometric_mean("", text) == pytest.approx(product**0.25)


def test_counted_scores_stay_on_the_scale_and_nothing_scores_nothing() -> None:
    texts = [f"{'## Answer - word ' * 40}{PRAISE}", "x", "\u200b", "!!! ???", "- a\n- b"]
    for judge in (verifiable_value.whole, *verifiable_value.JUDGES.values()):
        assert all(0.0 <= judge("", text) <= 5.0 for text in texts)
        assert judge("", " \n") == 0.0
