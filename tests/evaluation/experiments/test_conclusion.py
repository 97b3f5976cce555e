"""What is concluded from planted figures: better, worse, no worse, inconclusive, and what would decide."""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from dynalign.evaluation.experiments.arms import Arm, Design
from dynalign.evaluation.experiments.comparison import measure_table
from dynalign.evaluation.experiments.conclusion import conclusion
from dynalign.evaluation.experiments.run_figures import RunFigures, RunOutcome
from dynalign.evaluation.statistics.crossed import crossed_mean, seeds_needed

DESIGN = Design(
    "size",
    "How large?",
    (
        Arm("a", "A", (), "at equal cost", 1),
        Arm("b", "B", (), "at equal cost", 2),
        Arm("base", "Base", (), "at equal cost", 3),
    ),
    "base",
    "heldout",
    ("step_s",),
    choose="cheapest",
)
MARGIN = 0.25
DONE = RunOutcome("finished", 4, 60.0)


def runs(
    levels: Mapping[str, float],
    noise: float,
    seeds: int = 3,
    prompts: int = 24,
    times: Mapping[str, float] = {},
) -> dict[str, list[RunFigures]]:
    """Runs whose arms differ by `levels`; all share the prompts' difficulty."""
    rng = np.random.default_rng(5)
    hard = rng.normal(size=prompts)
    return {
        arm: [
            RunFigures(
                arm, seed, DONE,
                {"heldout": {f"h{n}": level + hard[n] + noise * rng.normal() for n in range(prompts)}},
                {"step_s": times.get(arm, 8.0) + 0.01 * seed},
            )
            for seed in range(seeds)
        ]
        for arm, level in levels.items()
    }  # fmt: skip


def said(design: Design, found: Mapping[str, list[RunFigures]]) -> list[str]:
    table = measure_table(design, found, "heldout", MARGIN)
    return conclusion(design, found, table, MARGIN, measure_table(design, found, "step_s", None))


def test_each_verdict_follows_from_what_was_planted() -> None:
    table = measure_table(DESIGN, runs({"a": 2.0, "b": 3.5, "base": 3.0}, 0.2), "heldout", MARGIN)
    assert [each.verdict for each in table.differences] == ["worse", "better"]
    table = measure_table(DESIGN, runs({"a": 3.0, "b": 2.97, "base": 3.0}, 0.1), "heldout", MARGIN)
    assert [each.verdict for each in table.differences] == ["no worse", "no worse"]
    table = measure_table(DESIGN, runs({"a": 2.9, "b": 3.1, "base": 3.0}, 3.0), "heldout", MARGIN)
    assert [each.verdict for each in table.differences] == ["inconclusive", "inconclusive"]


def test_where_the_baseline_has_learned_too_little_no_arm_is_no_worse() -> None:
    def gained(points: float) -> list[str]:
        found = runs({"a": 3.0, "b": 2.97, "base": 3.0}, 0.1)
        found["base"] = [
            replace(run, by_prompt={**run.by_prompt, "heldout_gain": {"h0": points, "h1": points}})
            for run in found["base"]
        ]
        return said(DESIGN, found)

    assert "A is no worse than Base" in gained(0.3)[1]
    few = gained(0.05)
    assert few[0] == "At equal cost: none of A, B is shown to be no worse than Base."
    assert few[1].startswith("A against Base: inconclusive, ")
    assert few[1].endswith(
        "Base itself has gained +0.05, so that a loss of 0.25 could not be seen: train longer."
    )


def test_the_cheapest_arm_that_is_no_worse_is_named_or_that_there_is_none() -> None:
    assert said(DESIGN, runs({"a": 1.0, "b": 3.0, "base": 3.0}, 0.1))[0] == (
        "At equal cost: B is the cheapest arm that is no worse than Base."
    )
    assert said(DESIGN, runs({"a": 1.0, "b": 2.0, "base": 3.0}, 0.1))[0] == (
        "At equal cost: none of A, B is shown to be no worse than Base."
    )


def test_an_inconclusive_arm_says_how_many_seeds_and_prompts_would_decide() -> None:
    found = runs({"a": 2.9, "b": 3.1, "base": 3.0}, 1.0)
    sentence = said(DESIGN, found)[1]
    assert sentence.startswith("A against Base: inconclusive, ")
    match = re.search(r"with (\d+) seeds on (\d+) prompts", sentence)
    assert match is not None
    table = measure_table(DESIGN, found, "heldout", MARGIN)
    mean = table.differences[0].found
    assert mean is not None
    assert mean.components is not None
    assert int(match[1]) == max(3, seeds_needed(mean.components, int(match[2]), 2, MARGIN) or 0)


def test_the_fastest_arm_among_those_that_are_no_worse_is_named() -> None:
    design = Design("k", "How old?", DESIGN.arms, "base", "heldout", ("step_s",), choose="fastest")
    times = {"a": 2.0, "b": 5.0, "base": 8.0}
    levels = {"a": 1.0, "b": 3.0, "base": 3.0}
    assert said(design, runs(levels, 0.1, times=times))[0] == (
        "B is the fastest arm that is no worse than Base: 5.0 s per step against 8.0 s."
    )
    assert said(design, runs(levels, 0.1, times={"a": 2.0, "b": 9.0}))[0] == (
        "No arm that is no worse than Base has a shorter step."
    )
    assert said(design, runs(levels, 5.0))[0] == (
        "No arm is shown to be no worse than Base in held-out reward, without the system prompt."
    )


def test_the_best_arms_are_named_or_that_none_is_shown_to_differ() -> None:
    design = Design("judge", "Who?", DESIGN.arms, "base", "heldout", ())
    assert said(design, runs({"a": 1.0, "b": 4.0, "base": 3.0}, 0.1))[0] == "Better than Base: B; worse: A."
    assert said(design, runs({"a": 3.0, "b": 3.0, "base": 3.0}, 1.0))[0] == (
        "No arm is shown to differ from Base in held-out reward, without the system prompt."
    )


def test_a_lower_time_is_better_and_a_measure_of_runs_is_paired_by_seed() -> None:
    found = runs({"a": 3.0, "b": 3.0, "base": 3.0}, 0.1, times={"a": 2.0, "b": 20.0, "base": 8.0})
    table = measure_table(DESIGN, found, "step_s", None)
    # The seeds' own times are the same in each arm, so that nothing varies and nothing can be said.
    assert [each.verdict for each in table.differences] == ["inconclusive", "inconclusive"]
    noisy = {
        arm: [RunFigures(arm, run.seed, DONE, {}, {"step_s": time + 0.1 * run.seed * sign}) for run in of_arm]
        for (arm, of_arm), time, sign in zip(found.items(), (2.0, 20.0, 8.0), (1, -1, 0), strict=True)
    }
    table = measure_table(DESIGN, noisy, "step_s", None)
    assert [each.verdict for each in table.differences] == ["better", "worse"]


def test_only_seeds_and_prompts_that_both_arms_have_are_compared() -> None:
    found = runs({"a": 3.0, "b": 3.0, "base": 3.0}, 0.1)
    unread = dict(found["a"][0].by_prompt["heldout"])
    del unread["h3"]
    first = found["a"][0]
    found["a"][0] = RunFigures("a", 0, first.outcome, {"heldout": unread}, first.values)
    found["b"] = [RunFigures("b", 0, RunOutcome("failed", 2, None, "EngineError")), found["b"][1]]
    table = measure_table(DESIGN, found, "heldout", MARGIN)
    assert table.differences[0].found is not None
    assert table.differences[0].found.prompts == 23
    assert table.differences[1].lacking == "1 seed in common, two are needed"
    sentences = said(DESIGN, found)
    assert sentences[0] == "Preliminary: 7 of 8 runs have finished."
    assert sentences[1] == "Run b-s0 failed after step 2: EngineError"
    assert sentences[-1] == "B against Base: inconclusive, 1 seed in common, two are needed."


def test_nothing_is_concluded_before_a_run_has_finished() -> None:
    found = {arm.name: [RunFigures(arm.name, 0, RunOutcome("not started"))] for arm in DESIGN.arms}
    assert said(DESIGN, found) == ["Preliminary: 0 of 3 runs have finished."]


def test_false_alarms_are_as_rare_as_holm_promises() -> None:
    """Three arms without any difference: at least one is called better or worse in about 5 % of cases."""
    rng = np.random.default_rng(1)
    design = Design("x", "?", (*DESIGN.arms, Arm("c", "C", ())), "base", "heldout", ())
    times = 150
    alarms = 0
    for _ in range(times):
        found = {}
        for arm in design.arms:
            found[arm.name] = [
                RunFigures(
                    arm.name, seed, DONE, {"heldout": dict(enumerate_h(rng.normal(size=12) + rng.normal()))}
                )
                for seed in range(4)
            ]
        table = measure_table(design, found, "heldout", None)
        alarms += any(each.verdict != "inconclusive" for each in table.differences)
    assert alarms / times <= 0.10


def enumerate_h(values: "np.ndarray") -> list[tuple[str, float]]:
    return [(f"h{number}", float(value)) for number, value in enumerate(values)]


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_are_compared_as_well_where_a_third_one_failed(seeds: int) -> None:
    found = runs({"a": 3.0, "b": 3.0, "base": 3.0}, 0.1, seeds=seeds)
    table = measure_table(DESIGN, found, "heldout", MARGIN)
    mean = crossed_mean(
        [
            [
                a.by_prompt["heldout"][key] - b.by_prompt["heldout"][key]
                for key in sorted(a.by_prompt["heldout"])
            ]
            for a, b in zip(found["a"], found["base"], strict=True)
        ]
    )
    assert table.differences[0].found == mean
