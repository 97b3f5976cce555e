"""Agreement against published examples, and against the definitions written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynalign.evaluation.statistics.agreement import (
    Level,
    WithinGroups,
    kendall_tau_b,
    krippendorff_alpha,
    tau_within_groups,
)

X = None
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
    [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
]
"""Section D of "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units, holes."""


def by_definition(ratings_JU: list[list[float | None]], level: Level) -> float:
    """Alpha from the matrix of coincidences, as Krippendorff writes it."""
    units = [[value for value in unit if value is not None] for unit in zip(*ratings_JU, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    at = {value: index for index, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in units:
        for first, second in itertools.permutations(range(len(unit)), 2):
            coincidences[at[unit[first]], at[unit[second]]] += 1 / (len(unit) - 1)
    n_V = coincidences.sum(axis=1)
    n = n_V.sum()
    squared = np.zeros_like(coincidences)
    for c, k in itertools.product(range(len(values)), repeat=2):
        low, high = sorted((c, k))
        between = n_V[low : high + 1].sum() - (n_V[c] + n_V[k]) / 2
        distance = {"nominal": float(c != k), "interval": values[c] - values[k], "ordinal": between}[level]
        squared[c, k] = distance**2
    expected = (np.outer(n_V, n_V) * squared).sum()
    return float(1 - (n - 1) * (coincidences * squared).sum() / expected) if expected else math.nan


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_what_krippendorff_published(level: Level, published: float) -> None:
    estimate = krippendorff_alpha(KRIPPENDORFF, level)
    assert estimate is not None
    assert estimate.mean == pytest.approx(published, abs=5e-4)
    assert estimate.n == 11, "the twelfth unit has one value, which nothing can agree with"
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < published < estimate.high <= 1


RATINGS = st.integers(2, 9).flatmap(
    lambda units: st.lists(
        st.lists(st.sampled_from([None, 0, 1, 2.5, 4]), min_size=units, max_size=units),
        min_size=2,
        max_size=4,
    )
)


@given(RATINGS, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_that_of_the_matrix_of_coincidences(ratings: list[list[float | None]], level: Level) -> None:
    estimate = krippendorff_alpha(ratings, level, resamples=10)
    expected = by_definition(ratings, level)
    if math.isnan(expected):
        assert estimate is None
    else:
        assert estimate is not None
        assert estimate.mean == pytest.approx(expected, abs=1e-9)


def test_equal_judges_agree_and_independent_ones_do_not() -> None:
    scores = np.random.default_rng(0).integers(0, 6, (2, 400)).astype(float).tolist()
    same = krippendorff_alpha([scores[0], scores[0]], "ordinal", resamples=200)
    other = krippendorff_alpha(scores, "ordinal", resamples=2000)
    assert same is not None
    assert other is not None
    assert (same.mean, same.low, same.high) == (1, 1, 1)
    assert other.low is not None
    assert other.high is not None
    assert other.low < 0 < other.high


def test_an_ordinal_alpha_sees_ranks_alone() -> None:
    stretched = [[None if value is None else 10.0**value for value in row] for row in KRIPPENDORFF]
    assert krippendorff_alpha(stretched, "ordinal") == krippendorff_alpha(KRIPPENDORFF, "ordinal")


def test_the_interval_of_alpha_covers_what_it_estimates() -> None:
    # Two judges, each the truth plus noise of the same size: the interval alpha is about ½.
    random = np.random.default_rng(7)
    covered = 0
    for seed in range(150):
        truth = random.normal(size=60)
        ratings = [(truth + random.normal(size=60)).tolist() for _ in range(2)]
        estimate = krippendorff_alpha(ratings, "interval", seed=seed, resamples=400)
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.89 <= covered / 150 <= 0.99


def test_the_bootstrap_of_alpha_draws_whole_prompts() -> None:
    scores = np.random.default_rng(2).integers(0, 6, (2, 20)).astype(float)
    scores[1, ::2] = scores[0, ::2]
    units = krippendorff_alpha(scores.tolist(), "ordinal")
    copied = krippendorff_alpha(np.tile(scores, 4).tolist(), "ordinal", clusters_U=[*range(20)] * 4)
    assert units is not None
    assert copied is not None
    assert copied.n == 20
    assert units.low is not None
    assert copied.low == pytest.approx(units.low, abs=0.05)


def test_without_pairs_or_without_spread_there_is_no_alpha() -> None:
    assert krippendorff_alpha([[1, None], [None, 2]], "nominal") is None
    assert krippendorff_alpha([[3, 3], [3, 3]], "ordinal") is None
    assert krippendorff_alpha([], "ordinal") is None


GROUPS = st.integers(2, 9).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 4), min_size=size, max_size=size)] * 2)
)


@given(GROUPS)
def test_tau_b_is_scipys(group: tuple[list[int], list[int]]) -> None:
    ours = kendall_tau_b(*group)
    theirs = float(stats.kendalltau(*group).statistic)
    assert ours == pytest.approx(theirs) if ours is not None else math.isnan(theirs)


def test_tau_within_groups_is_a_mean_over_groups_and_counts_those_without_spread() -> None:
    # (1, 2, 3) with (1, 3, 2): two pairs concordant, one discordant, 1/3; with itself 1. A missing score
    # leaves the pair (2, 3), in order: 1.
    groups: list[tuple[list[float | None], list[float | None]]] = [
        ([1, 2, 3], [1, 3, 2]),
        ([1, 2], [5, 6]),
        ([1, 2, 3], [None, 0, 4]),
        ([3, 3], [1, 2]),
        ([1], [2]),
    ]
    found = tau_within_groups(groups)
    assert found.correlation is not None
    assert found.correlation.mean == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert found.correlation.high == 1
    assert (found.groups, found.without_spread) == (3, 2)
    assert tau_within_groups([]) == WithinGroups(None, 0, 0)


def test_groups_of_one_prompt_are_one_part_of_the_interval() -> None:
    groups = [([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [1, 3, 2]), ([1, 2, 3], [2, 1, 3])]
    found = tau_within_groups(groups, clusters=["a", "a", "b"])
    assert found.correlation is not None
    assert found.correlation.n == 2
