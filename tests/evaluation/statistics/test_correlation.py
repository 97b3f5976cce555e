import numpy as np
import pytest
from scipy import stats

from dynalign.evaluation.statistics.correlation import between_clusters, spearman, within_clusters

RANDOM = np.random.default_rng(0)
PROMPTS = [index // 4 for index in range(160)]


def test_spearman_with_ties_equals_scipy() -> None:
    first = RANDOM.integers(0, 6, 160).astype(float)
    second = first + RANDOM.integers(-3, 4, 160)
    found = spearman(list(first), list(second), PROMPTS, resamples=400)
    assert found is not None
    assert found.mean == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert found.n == 40


def test_within_and_between_can_point_in_opposite_directions() -> None:
    level = np.repeat(RANDOM.normal(0, 5, 40), 4)
    noise = RANDOM.normal(0, 1, 160)
    first = level + noise
    second = level - noise
    within = within_clusters(list(first), list(second), PROMPTS, resamples=200)
    between = between_clusters(list(first), list(second), PROMPTS, resamples=200)
    assert within is not None
    assert between is not None
    assert within.mean == pytest.approx(-1.0)
    means = [values.reshape(40, 4).mean(axis=1) for values in (first, second)]
    assert between.mean == pytest.approx(stats.pearsonr(*means).statistic)


def test_what_has_no_spread_has_no_correlation() -> None:
    assert spearman([1, 1, 1], [1, 2, 3], [0, 1, 2]) is None
    assert spearman([], [], []) is None
    assert within_clusters([1, 2], [1, 2], [0, 1]) is None
    assert between_clusters([1, 2, 1, 2], [1, 2, 2, 1], [0, 0, 1, 1]) is None
