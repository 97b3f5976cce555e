"""The area under the ROC curve: by hand, by another formula, and how often its interval holds the truth."""

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynalign.evaluation.statistics.auc import auc, share_interval
from dynalign.evaluation.statistics.bootstrap import Floats, percentile_interval
from dynalign.evaluation.statistics.estimates import Estimate


def test_ties_count_half_and_only_answers_to_the_same_prompt_meet() -> None:
    # Prompt a: 3 against 3 and 1: ½ and 1. Prompt b: 0 against 4: 0. Together 1.5 of 3 pairs.
    scores = [3, 3, 1, 0, 4]
    better = [True, False, False, True, False]
    within = auc(scores, better, "aaabb")
    assert within is not None
    assert (within.mean, within.n) == (0.5, 2)
    # All pairs besides: 3 against 4, 0 against 3 and 1: none won.
    over_all = auc(scores, better, "aaabb", pairs="all")
    assert over_all is not None
    assert over_all.mean == 1.5 / 6


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=15))
def test_over_all_pairs_it_is_mann_and_whitneys_u(answers: list[tuple[int, bool]]) -> None:
    scores = [score for score, _ in answers]
    better = [label for _, label in answers]
    found = auc(scores, better, range(len(answers)), pairs="all")
    upper = [score for score, label in answers if label]
    lower = [score for score, label in answers if not label]
    if not upper or not lower:
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(stats.mannwhitneyu(upper, lower).statistic / len(upper) / len(lower))


def simulated(
    random: np.random.Generator, prompts: int, separation: float
) -> tuple[list[float], list[bool], list[int]]:
    """A good and two worse answers per prompt. Scores: ease of the prompt, quality, noise."""
    ease = random.normal(0, 0.7, prompts)
    good = ease + separation + random.normal(size=prompts)
    shared = random.normal(0, 0.6, prompts)  # the worse answers of a prompt resemble each other
    worse = ease + shared + random.normal(0, 0.8, (2, prompts))
    scores = np.concatenate([good, worse.ravel()]).tolist()
    return scores, [True] * prompts + [False] * 2 * prompts, [*range(prompts)] * 3


@pytest.mark.parametrize(("prompts", "separation"), [(16, 0.6), (16, 1.5), (60, 1.0)])
def test_the_interval_within_prompts_covers_the_truth(prompts: int, separation: float) -> None:
    # The difference of a good and a worse answer is normal with variance 1 + 0.36 + 0.64 = 2.
    truth = NormalDist().cdf(separation / 2**0.5)
    random = np.random.default_rng(prompts)
    covered = 0
    for _ in range(1000):
        estimate = auc(*simulated(random, prompts, separation))
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / 1000 <= 0.985


def test_the_interval_over_all_pairs_covers_the_truth() -> None:
    truth = NormalDist().cdf(1.0 / (2 + 2 * 0.49) ** 0.5)
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(500):
        estimate = auc(*simulated(random, 40, 1.0), pairs="all")
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert 0.92 <= covered / 500 <= 0.98


def test_the_variance_of_delong_agrees_with_a_bootstrap_over_prompts() -> None:
    scores, better, prompts = simulated(np.random.default_rng(8), 50, 0.8)
    upper = np.array(scores[:50])
    lower = np.array(scores[50:]).reshape(2, 50)
    wins_CC = (upper[None, :, None] > lower[:, None, :]).sum(axis=0).astype(float)

    def area(weights_BC: Floats) -> Floats:
        return np.asarray(np.einsum("bc,cd,bd->b", weights_BC, wins_CC, weights_BC) / (2 * 50 * 50))

    ends = percentile_interval(area, 50)
    found = auc(scores, better, prompts, pairs="all")
    assert ends is not None
    assert found is not None
    assert found.low == pytest.approx(ends[0], abs=0.02)
    assert found.high == pytest.approx(ends[1], abs=0.02)


def test_without_a_loss_the_interval_still_has_a_width_that_the_prompts_decide() -> None:
    def lower_end(prompts: int) -> float:
        found = auc(
            [1.0, 0.0] * prompts, [True, False] * prompts, [p for p, _ in product(range(prompts), "gw")]
        )
        assert found is not None
        assert found.mean == found.high == 1
        assert found.low is not None
        return found.low

    assert lower_end(8) == pytest.approx(8 / (8 + 2.3646**2), abs=1e-4)
    assert 0.55 < lower_end(8) < lower_end(16) < lower_end(100) < 0.97
    assert share_interval(1.0, 0.0, 1, 1) == Estimate(1.0, None, None, 1)


def test_with_one_pair_per_prompt_it_is_wilsons_interval_but_for_students_t() -> None:
    wilson = stats.binomtest(340, 400).proportion_ci(method="wilson")
    variance = 0.85 * 0.15 / 400
    ours = share_interval(0.85, variance, 400, 400)
    assert ours.low == pytest.approx(wilson.low, abs=5e-4)
    assert ours.high == pytest.approx(wilson.high, abs=5e-4)


def test_without_a_pair_there_is_no_area() -> None:
    assert auc([1.0, 2.0], [True, False], "ab") is None
    assert auc([1.0], [True], "a", pairs="all") is None
    assert auc([], [], []) is None
