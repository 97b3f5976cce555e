import numpy as np
import pytest
from scipy.optimize import minimize

from dynalign.evaluation.pairwise.length_control import controlled_share, length_controlled, markup
from dynalign.evaluation.pairwise.records import Label
from tests.worlds.planted_pairs import compared

PROMPTS = 4_000


def lengths(longer: float, seed: int) -> list[tuple[int, int]]:
    """Of both answers: the first model's is longer by a factor, with a spread."""
    random = np.random.default_rng(seed)
    ours = 400 * np.exp(random.normal(longer, 0.5, PROMPTS))
    theirs = 400 * np.exp(random.normal(0.0, 0.5, PROMPTS))
    return [(int(a), int(b)) for a, b in zip(ours, theirs, strict=True)]


def verdicts(chances: np.ndarray, seed: int) -> list[tuple[Label, Label]]:
    random = np.random.default_rng(seed)
    drawn = random.random((len(chances), 2)) < chances[:, None]
    return [("win" if a else "loss", "win" if b else "loss") for a, b in drawn]


def test_a_judge_of_length_alone_says_50_percent_at_equal_length() -> None:
    chars = lengths(1.2, seed=0)
    by_length = np.array([(a - b) / (a + b) for a, b in chars])
    rows = compared(verdicts(1 / (1 + np.exp(-6 * by_length)), seed=1), chars)
    raw = np.mean([row.value for row in rows if row.value is not None])
    found = length_controlled(rows)
    assert raw >= 0.85
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.5, abs=0.03)
    assert found.estimate.low is not None
    assert found.estimate.high is not None
    assert found.estimate.low < 0.5 < found.estimate.high
    assert found.length == pytest.approx(6, abs=0.8)
    assert not found.separated


def test_a_judge_of_quality_alone_is_left_at_70_percent() -> None:
    chars = lengths(1.2, seed=2)
    found = length_controlled(compared(verdicts(np.full(PROMPTS, 0.7), seed=3), chars))
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.7, abs=0.03)
    assert found.longer > 200


def test_a_length_that_decides_by_itself_is_said() -> None:
    chars = lengths(1.0, seed=4)
    labels: list[tuple[Label, Label]] = [("win", "win") if a > b else ("loss", "loss") for a, b in chars]
    found = length_controlled(compared(labels, chars))
    assert found is not None
    assert found.separated


def test_the_fit_equals_a_second_implementation_and_its_interval_holds_the_truth() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        features = random.normal(size=(150, 2)) * 0.5
        chances = 1 / (1 + np.exp(-(0.4 + features @ np.array([1.5, -1.0]))))
        values = (random.random((2, 150)) < chances).mean(axis=0)
        estimate, coefficients = controlled_share(values, features, range(150))
        truth = 1 / (1 + np.exp(-0.4))
        held += (estimate.low or 0.0) <= truth <= (estimate.high or 0.0)
    assert 0.90 <= held / 200 <= 0.99
    design = np.column_stack([np.ones(150), features])

    def loss(beta: np.ndarray) -> float:
        eta = design @ beta
        return float((np.logaddexp(0, eta) - values * eta).sum() + 0.5e-3 * (beta[1:] ** 2).sum())

    assert coefficients == pytest.approx(minimize(loss, np.zeros(3), tol=1e-10).x, abs=1e-3)


def test_few_prompts_and_equal_values_are_not_controlled() -> None:
    assert length_controlled(compared([("win", "win")] * 19)) is None
    assert length_controlled(compared([("win", "win")] * 40)) is None


def test_marks_of_markup_are_counted() -> None:
    assert markup("plain words, 3 * 4 - 2") == 0
    assert markup("# Title\n- one\n- **two**\n1. three") == 6
