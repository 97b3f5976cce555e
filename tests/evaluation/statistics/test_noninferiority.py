"""Tests of non-inferiority: known answers, SciPy's tests, and by simulation their size and power."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dynalign.evaluation.statistics.noninferiority import holm, lower_bounds, noninferiority, p_values
from dynalign.evaluation.statistics.noninferiority_plan import Variances, plan, repeats_needed

Floats = NDArray[np.float64]
SIMULATIONS = 4000
"""The standard error of a size of 5 % is then 0.34 %."""
IFEVAL = Variances(0.01, 0.06)
GPQA = Variances(0.02, 0.16)
AIME = Variances(0.02, 0.12)


def simulated(items: int, repeats: int, loss: float, within: float, seed: int = 7) -> Floats:
    """Differences of items whose chances of a right answer vary, for a model that has lost `loss` of them.

    The item's chance is Beta(a, a), with a mean variance `within` of one answer; the model's is p - 2·loss·p
    ± p(1 - p)/2, so that items differ in what they lose, and their mean loss is `loss` exactly."""
    random = np.random.default_rng(seed)
    shape = 2 * within / (1 - 4 * within)
    chance = random.beta(shape, shape, size=(SIMULATIONS, items))
    sign = random.choice([-0.5, 0.5], size=chance.shape)
    lost = chance + sign * chance * (1 - chance) * (1 - 2 * loss) - 2 * loss * chance
    assert lost.min() >= 0
    assert lost.max() <= 1
    return (random.binomial(repeats, lost) - random.binomial(repeats, chance)) / repeats


def outright(items: int, gained: float, lost: float) -> Floats:
    """Differences of one greedy answer each: a share of items is gained, another is lost."""
    random = np.random.default_rng(11)
    return random.choice([1.0, -1.0, 0.0], p=[gained, lost, 1 - gained - lost], size=(SIMULATIONS, items))


@pytest.mark.parametrize(
    ("differences", "margin"),
    [
        (simulated(541, 1, 0.04, 0.06), 0.04),
        (simulated(541, 4, 0.04, 0.06), 0.04),
        (simulated(198, 8, 0.05, 0.16), 0.05),
        (simulated(30, 16, 0.10, 0.12), 0.10),
        (outright(541, 0.04, 0.08), 0.04),
        (outright(541, 0.00, 0.04), 0.04),
        (outright(30, 0.00, 0.10), 0.10),
        (outright(30, 0.05, 0.15), 0.10),
    ],
    ids=["IFEval", "IFEval K=4", "GPQA", "AIME", "12 % discordant", "losses", "3 of 30", "6 of 30"],
)
def test_at_most_5_5_percent_of_models_at_the_margin_pass(differences: Floats, margin: float) -> None:
    assert np.mean(p_values(differences, margin) <= 0.05) <= 0.055


@pytest.mark.parametrize(
    ("variances", "items", "repeats", "margin"),
    [(IFEVAL, 541, 1, 0.04), (GPQA, 198, 8, 0.05), (AIME, 30, 16, 0.10)],
    ids=["IFEval", "GPQA", "AIME"],
)
def test_at_least_78_percent_of_models_that_lost_nothing_pass_and_the_plan_says_how_many(
    variances: Variances, items: int, repeats: int, margin: float
) -> None:
    differences = simulated(items, repeats, 0.0, variances.within)
    found = float(np.mean(p_values(differences, margin) <= 0.05))
    assert found >= 0.78
    between = float(differences.var()) - 2 * variances.within / repeats
    as_simulated = Variances(max(0.0, between), variances.within)
    assert found == pytest.approx(plan(as_simulated, items, repeats, margin).power, abs=0.05)
    assert plan(variances, items, repeats, margin).power >= 0.78


def test_a_suite_at_its_margins_passes_any_task_in_at_most_5_5_percent() -> None:
    suite = [
        p_values(simulated(541, 4, 0.04, 0.06, 1), 0.04),
        p_values(simulated(198, 8, 0.05, 0.16, 2), 0.05),
        p_values(simulated(30, 16, 0.10, 0.12, 3), 0.10),
    ]
    adjusted = np.array([holm(list(row)) for row in np.stack(suite, axis=1)])
    assert np.mean((adjusted <= 0.05).any(axis=1)) <= 0.055


def test_with_many_changes_it_is_the_paired_t_test() -> None:
    differences = simulated(541, 4, 0.01, 0.16)[:20]
    expected = stats.ttest_1samp(differences, -0.04, axis=1, alternative="greater")
    assert p_values(differences, 0.04) == pytest.approx(expected.pvalue, abs=0.01)
    low = stats.ttest_1samp(differences, 0, axis=1, alternative="greater").confidence_interval(0.95).low
    assert lower_bounds(differences) == pytest.approx(low, abs=0.002)


def test_with_losses_alone_it_is_wilsons_bound() -> None:
    differences = np.zeros((1, 2000))
    differences[0, :37] = -1
    high = stats.binomtest(37, 2000).proportion_ci(0.9, method="wilson").high
    assert lower_bounds(differences)[0] == pytest.approx(-high, rel=2e-3)  # t with 1999 degrees, not z


def test_items_that_never_change_prove_no_more_than_their_number_allows() -> None:
    assert lower_bounds(np.zeros((1, 30)))[0] < -0.07  # 3/30 by the rule of three, 8.8 points by Wilson
    assert noninferiority([([0.0] * 10, 0.10)])[0].verdict == "inconclusive"
    assert noninferiority([([0.0] * 200, 0.05)])[0].verdict == "non-inferior"


def test_the_bound_and_the_p_value_say_the_same() -> None:
    differences = simulated(198, 8, 0.03, 0.16)[:300]
    assert ((lower_bounds(differences) > -0.05) == (p_values(differences, 0.05) < 0.05)).all()


def test_the_three_verdicts() -> None:
    lost = [-0.5] * 100 + [0.0] * 100
    same = [0.25, -0.25] * 200
    few = [0.5, -0.5] * 4
    found = noninferiority([(lost, 0.05), (same, 0.05), (few, 0.05)])
    assert [each.verdict for each in found] == ["inferior", "non-inferior", "inconclusive"]
    assert found[0].difference.mean == -0.25
    assert found[1].difference.low is not None
    assert found[1].difference.low < found[1].bound < 0 < 0.05


def test_holms_adjusted_values_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_powers_table_of_the_standard_sets() -> None:
    margins = [
        2.486 * 100 * plan(variances, items, repeats, 0.05).standard_error
        for variances, items in ((IFEVAL, 541), (GPQA, 198), (AIME, 30))
        for repeats in (8, 16)
    ]
    assert margins == pytest.approx([1.7, 1.4, 4.3, 3.5, 10.2, 8.5], abs=0.06)  # rounded up
    assert plan(GPQA, 198, 8, 0.05, tests=3).power_holm < plan(GPQA, 198, 8, 0.05, tests=3).power


def test_the_repeats_that_are_needed_and_the_items_that_no_repeats_replace() -> None:
    assert repeats_needed(IFEVAL, 541, 0.04) == 1
    needed = repeats_needed(GPQA, 198, 0.05)
    assert needed is not None
    assert plan(GPQA, 198, needed, 0.05).power >= 0.8 > plan(GPQA, 198, needed - 1, 0.05).power
    assert repeats_needed(AIME, 5, 0.05) is None


@pytest.mark.parametrize("wrong", [[0.1], [0.0, math.nan], [0.0, 1.5]])
def test_what_is_no_difference_of_two_items_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="between -1 and 1"):
        p_values(np.array(wrong), 0.05)
