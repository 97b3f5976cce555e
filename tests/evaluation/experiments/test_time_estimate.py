"""How long a small form takes by plan."""

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.arms import SMALL, Arm, Design
from dynalign.evaluation.experiments.catalogue import EXPERIMENTS, ExperimentRequest
from dynalign.evaluation.experiments.time_estimate import (
    ENGINE_S,
    LEARN_S,
    LONGEST_S,
    SCORE_S,
    START_S,
    TOKEN_S,
    estimate,
    paper_seconds,
    run_seconds,
)
from dynalign.launch.commands.experiment_paper import SMALL_RUN

FUNCTION = "dynalign.rollout.judges.reward_functions:short_words"


def small_settings(name: str, *given: str) -> tuple[Design, list[RunSettings]]:
    """The arms of a small form, as `dynalign experiment NAME quickstart --small` has them."""
    small = Arm("", "", SMALL).overrides()
    first = load_run("quickstart", [*small, *given]).settings
    design = EXPERIMENTS[name](ExperimentRequest(first, models=("a/One", "b/Two")))
    common = [*small, *Arm("", "", design.small).overrides(), *given, *Arm("", "", design.needs).overrides()]
    arms = [arm for arm in design.arms if arm.small or arm.name == design.baseline]
    return design, [load_run("quickstart", [*common, *arm.overrides()]).settings for arm in arms]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_small_form_takes_at_most_fifteen_minutes_by_plan(name: str) -> None:
    design, arms = small_settings(name)
    prompts = arms[0].heldout.prompts * (2 if name == "transfer" else 1)
    found = estimate(arms, 3, prompts, design.asks_third_judge, design.plants_bias)
    assert found.runs == 3 * len(arms) <= 6
    assert found.whole_s <= LONGEST_S
    assert f"estimated: {found.whole_s / 60:.0f} minutes" in found.line()


def test_the_small_way_of_the_paper_takes_at_most_fifteen_minutes_by_plan() -> None:
    assert paper_seconds(load_run("quickstart", SMALL_RUN).settings) <= LONGEST_S


@pytest.mark.parametrize("name", ["group-size", "staleness", "rubric", "transfer"])
def test_a_function_in_place_of_the_judge_takes_less(name: str) -> None:
    _, judged = small_settings(name)
    _, counted = small_settings(name, "judge.kind=function", f"judge.function={FUNCTION}")
    assert estimate(counted, 3, 4, False, False).whole_s < estimate(judged, 3, 4, False, False).whole_s


def test_the_time_of_a_run_is_that_of_its_parts() -> None:
    given = ["steps=5", "rollout.prompts_per_step=2", "rollout.group_size=4", "heldout.every_steps=2"]
    given += ["rollout.max_completion_tokens=20", "heldout.prompted=false", "judge.veto=[frozen]"]
    settings = load_run("quickstart", [*given, "judge.pool.engines=1"]).settings
    one = 20 * TOKEN_S + 2 * SCORE_S
    by_hand = START_S + ENGINE_S + 5 * (LEARN_S + 8 * one) + 4 * 6 * one
    assert run_seconds(settings, heldout=6) == pytest.approx(by_hand)
    whole = estimate([settings], 3, 6, asks_judge=True, plants_bias=True)
    assert whole.run_s == pytest.approx(by_hand)
    assert whole.judging_s == pytest.approx(ENGINE_S + (3 * 6 * 4 + 3 * 6 * 4 * 5) * SCORE_S)
    assert whole.whole_s == pytest.approx(3 * by_hand + whole.judging_s)
