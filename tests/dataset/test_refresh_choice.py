"""Where groups still separate: the formulas by hand, and what refreshing brings to a simulated policy."""

from dataclasses import asdict
from math import sqrt
from statistics import fmean

import pytest

from dynalign.dataset.refresh_choice import GroupOutcome, choose, group_usefulness, useful_cells
from dynalign.dataset.taxonomy import load_taxonomy
from tests.worlds.simulated_policy import TOKENS_PER_GROUP, SimulatedRun

FOOD = {"domain": "food and cooking"}
LAW = {"domain": "law, offices and papers"}


def visits(values: dict[int, list[float]]) -> list[GroupOutcome]:
    """The n-th value of a prompt is that of step n."""
    length = max(map(len, values.values()))
    return [
        GroupOutcome(prompt, step, each[step])
        for step in range(length)
        for prompt, each in values.items()
        if step < len(each)
    ]


def test_the_usefulness_of_a_group_is_the_reliability_of_its_advantages() -> None:
    assert group_usefulness([1.0, 2.0, 3.0], None) == 1.0
    assert group_usefulness([1.0, 2.0, 3.0], 0.5) == pytest.approx(1.0 - 0.25)
    assert group_usefulness([1.0, 2.0, 3.0], 2.0) == 0.0
    assert (
        group_usefulness([2.0, 2.0], 0.1) == group_usefulness([2.0], None) == group_usefulness([], 0.1) == 0
    )


def test_the_effect_of_a_value_is_its_distance_from_the_mean_with_chance_taken_out() -> None:
    """Means 0.3 and 0.7 around 0.5; s² = 0.04 / 2; n₀ = 2; τ² = (0.16 − 0.02) / 2 = 0.07; s² / n_v = 0.01."""
    cells = [FOOD, FOOD, LAW, LAW]
    choice = choose(cells, visits({0: [0.2], 1: [0.4], 2: [0.6], 3: [0.8]}))
    food, law = choice.effects
    assert (food.axis, food.value, food.prompts) == ("domain", "food and cooking", 2)
    assert food.usefulness == pytest.approx(0.3)
    assert food.standard_error == pytest.approx(0.1)
    assert food.effect == pytest.approx(0.07 / (0.07 + 0.01) * (0.3 - 0.5))
    assert law.effect == pytest.approx(-food.effect)
    assert choice.expected(FOOD) == pytest.approx(0.5 - 0.175)
    assert choice.expected({"domain": "unheard of"}) == choice.usefulness == pytest.approx(0.5)
    assert (choice.is_useful(LAW), choice.is_useful(FOOD), choice.is_useful({})) == (True, False, True)


def test_an_axis_whose_values_differ_by_no_more_than_chance_has_no_effect() -> None:
    choice = choose([FOOD, FOOD, LAW, LAW], visits({0: [0.0], 1: [1.0], 2: [0.1], 3: [0.9]}))
    assert [each.effect for each in choice.effects] == [0.0, 0.0]


def test_an_axis_with_one_value_or_one_prompt_for_each_value_is_left_out() -> None:
    assert choose([FOOD, FOOD], visits({0: [0.0], 1: [1.0]})).effects == ()
    assert choose([FOOD, LAW], visits({0: [0.0], 1: [1.0]})).effects == ()
    assert choose([{}, {}], visits({0: [0.0], 1: [1.0]})).effects == ()


def test_only_groups_of_the_newer_half_of_the_steps_say_how_useful_a_prompt_is() -> None:
    choice = choose([{}, {}], visits({0: [0.0, 0.0, 1.0, 0.5], 1: [0.0, 0.0]}))
    assert (choice.first_step, choice.prompts) == (2, 1)
    assert (choice.usefulness, choice.without_signal) == (0.75, 0.0)


def test_a_prompt_is_saturated_only_by_groups_in_a_row_that_chance_does_not_explain() -> None:
    """The mean is 0.5 with prompt 1 at (0) and prompt 2 at (1); m·û = 1. After 3 groups p = 1/5, and
    0.2 + 2·√(0.16 / 6) = 0.527; after 4 groups p = 1/6, and 0.167 + 2·√(0.139 / 7) = 0.448."""
    assert 1 / 5 + 2 * sqrt(0.16 / 6) > 0.5 > 1 / 6 + 2 * sqrt(5 / 36 / 7)
    for streak, saturated in ((1, ()), (3, ()), (4, (0,)), (9, (0,))):
        outcomes = visits({0: [0.0] * streak, 1: [1.0] * streak})
        assert choose([{}, {}], outcomes).saturated == saturated
    broken = visits({0: [0.0] * 5 + [0.1] + [0.0] * 3, 1: [1.0] * 9})
    assert choose([{}, {}], broken).saturated == ()


def test_no_prompt_is_saturated_where_all_are_without_signal() -> None:
    choice = choose([{}, {}], visits({0: [0.0] * 9, 1: [0.0] * 9}))
    assert (choice.usefulness, choice.without_signal, choice.saturated) == (0.0, 1.0, ())


def test_useful_cells_are_the_first_even_cells_that_are_expected_to_separate() -> None:
    taxonomy = load_taxonomy(None, "task")
    choice = choose([FOOD, FOOD, LAW, LAW], visits({0: [0.2], 1: [0.4], 2: [0.6], 3: [0.8]}))
    cells = useful_cells(choice, taxonomy, 40, seed=3)
    assert len(cells) == 40
    assert all(choice.is_useful(asdict(cell)) for cell in cells)
    assert {cell.domain for cell in cells} >= {LAW["domain"]}
    assert FOOD["domain"] not in {cell.domain for cell in cells}
    assert useful_cells(choice, taxonomy, 20, seed=3) == cells[:20]


def test_where_no_cell_is_useful_the_search_for_one_ends() -> None:
    choice = choose([FOOD, FOOD, LAW, LAW], visits({0: [0.2], 1: [0.4], 2: [0.6], 3: [0.8]}))
    assert useful_cells(choice, {**load_taxonomy(None, "task"), "domain": (FOOD["domain"],)}, 2, 0) == []


def test_refreshing_spares_a_simulated_policy_a_third_of_its_groups_without_signal_at_equal_tokens() -> None:
    """160 prompts, 8 passes; from the second pass on, a refresh after each. Measured over the seeds 0 to 5:
    35 to 46 % fewer, 41 % on average."""
    prompts = 160
    fewer = []
    for seed in range(2):
        plain = SimulatedRun(seed, prompts)
        plain.train(8 * prompts * TOKENS_PER_GROUP)
        refreshed = SimulatedRun(seed, prompts)
        for epoch in range(1, 9):
            refreshed.train(epoch * prompts * TOKENS_PER_GROUP)
            if 2 <= epoch < 8:
                refreshed.refresh()
        assert refreshed.tokens == plain.tokens
        fewer.append(1.0 - refreshed.without_signal / plain.without_signal)
    assert min(fewer) >= 0.30
    assert fmean(fewer) >= 0.35
