"""The reliability of scores within groups: a published example, planted variances, Spearman and Brown."""

import numpy as np
import pytest

from dynalign.evaluation.statistics.reliability import Reliability, reliability, samples_needed

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Table 2 of Shrout & Fleiss (1979): six targets, four ratings each. ICC(1,1) 0.17, ICC(1,4) 0.44."""


def planted(
    random: np.random.Generator,
    groups: int,
    candidates: int,
    noise: float,
    samples: int = 1,
    repeats: int = 2,
) -> list[list[list[float | None]]]:
    """Scores with a true standard deviation of 1 within groups, of 3 between them, and noise."""
    truth = random.normal(0, 3, (groups, 1, 1)) + random.normal(size=(groups, candidates, 1))
    found: list[list[list[float | None]]] = (
        truth + noise / samples**0.5 * random.normal(size=(groups, candidates, repeats))
    ).tolist()
    return found


def test_one_group_has_the_published_intraclass_correlation() -> None:
    found = reliability([SHROUT_FLEISS])
    assert found is not None
    assert found.of_one is not None
    assert found.of_one.mean == pytest.approx(0.17, abs=0.005)
    # Its mean squares: 11.24 between targets, 6.26 within.
    assert found.noise_std**2 == pytest.approx(6.26, abs=0.005)
    assert found.between_std**2 == pytest.approx((11.24 + 3 * 6.26) / 4, abs=0.005)


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1.0), (0.5, 0.8), (1.0, 0.5), (2.0, 0.2)])
def test_planted_noise_is_found(noise: float, expected: float) -> None:
    found = reliability(planted(np.random.default_rng(1), 400, 8, noise), resamples=500)
    assert found is not None
    assert found.of_one is not None
    assert found.of_one.mean == pytest.approx(expected, abs=0.03)
    assert found.noise_std == pytest.approx(noise, abs=0.05)
    assert found.of_one.low is not None
    assert found.of_one.high is not None
    assert found.of_one.low - 1e-9 <= expected <= found.of_one.high + 1e-9


def test_the_interval_covers_the_truth() -> None:
    random = np.random.default_rng(9)
    covered = 0
    for seed in range(200):
        found = reliability(planted(random, 40, 8, 1.0), seed=seed, resamples=400)
        assert found is not None
        assert found.of_one is not None
        assert found.of_one.low is not None
        assert found.of_one.high is not None
        covered += found.of_one.low <= 0.5 <= found.of_one.high
    assert 0.89 <= covered / 200 <= 0.99


def test_as_many_samples_as_are_said_to_be_needed_reach_the_wanted_reliability() -> None:
    needed = samples_needed(0.5)  # noise as large as the spread
    assert needed == 4  # 0.8·(1 - r)/(r·0.2)
    reached = reliability(planted(np.random.default_rng(3), 600, 8, 1.0, samples=needed), resamples=10)
    assert reached is not None
    assert reached.of_one is not None
    assert reached.of_one.mean == pytest.approx(0.8, abs=0.02)


def test_samples_are_counted_from_those_that_were_taken() -> None:
    assert samples_needed(0.5, samples=1) == 4
    assert samples_needed(0.5, samples=4) == 16
    assert samples_needed(0.9) == 1
    assert samples_needed(1.0) == 1
    assert samples_needed(0.0) is None
    assert samples_needed(-0.3) is None
    assert samples_needed(None) is None


def test_missing_scores_and_groups_of_one_are_left_out() -> None:
    groups: list[list[list[float | None]]] = [
        [[1, 1], [2, 2], [None, 5]],
        [[3, 3], [None, None]],
        [[4, 4], [4, 4]],
    ]
    found = reliability(groups)
    assert found is not None
    assert found.of_one is not None
    assert (found.of_one.mean, found.of_one.n) == (1.0, 2)
    # Mean squares between: ½ and 0 with a degree of freedom each.
    assert found.between_std**2 == pytest.approx(0.25)


def test_a_judge_that_always_says_the_same_has_no_reliability() -> None:
    assert reliability([[[3, 3], [3, 3]]]) == Reliability(None, 0.0, 0.0)
    assert reliability([]) is None
    assert reliability([[[3, 3]]]) is None
    with pytest.raises(ValueError, match="at least two"):
        reliability([[[3], [4]]])
