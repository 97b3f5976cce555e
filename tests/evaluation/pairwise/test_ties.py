import numpy as np
import pytest
from scipy.optimize import minimize

from dynalign.evaluation.pairwise.records import Label
from dynalign.evaluation.pairwise.ties import davidson_worth, order_agreement, tie_rules
from dynalign.evaluation.statistics.estimates import clustered_mean
from tests.worlds.planted_pairs import compared


def test_each_rule_has_its_own_denominator() -> None:
    labels: list[tuple[Label, Label]] = [
        ("win", "win"),
        ("win", "win"),
        ("win", "loss"),
        ("tie", "tie"),
        ("loss", "loss"),
        ("win", "tie"),
        ("win", "unread"),
    ]
    rows = compared(labels)
    values = [row.value for row in rows if row.value is not None]
    half, dropped, davidson, agree = tie_rules(rows, clustered_mean(values, range(6)), seed=0)
    found = [(each.rule, each.denominator) for each in (half, dropped, davidson, agree)]
    assert found == [("half", 6), ("dropped", 9), ("davidson", 12), ("agree", 3)]
    assert half.estimate is not None
    assert half.estimate.mean == pytest.approx((1 + 1 + 0.5 + 0.5 + 0 + 0.75) / 6)
    assert dropped.estimate is not None
    assert dropped.estimate.mean == pytest.approx(6 / 9)
    assert agree.estimate is not None
    assert agree.estimate.mean == pytest.approx(2 / 3)
    agreement = order_agreement([row.verdicts_J[0] for row in rows])
    assert (agreement.wins, agreement.losses, agreement.ties, agreement.differ) == (2, 1, 1, 2)


def test_davidson_without_a_bias_is_the_share_of_the_decided_verdicts() -> None:
    counts = np.array([[[6.0, 2.0, 3.0], [6.0, 2.0, 3.0]]])
    worth = davidson_worth(counts, ["p"])
    assert worth is not None
    assert worth.mean == pytest.approx((6 / 3) / (1 + 6 / 3), abs=1e-6)


def test_davidson_with_a_bias_equals_a_second_implementation() -> None:
    counts = np.array([[41.0, 9.0, 10.0], [22.0, 12.0, 26.0]])

    def minus_log_likelihood(parameters: np.ndarray) -> float:
        theta, order, log_tie = parameters
        total = 0.0
        for sign, (wins, ties, losses) in zip((1, -1), counts, strict=True):
            ours = np.exp(theta)  # the worths themselves, as Davidson and Beaver write them
            theirs = np.exp(-sign * order)
            tie = np.exp(log_tie) * np.sqrt(ours * theirs)
            whole = ours + theirs + tie
            total += wins * np.log(ours / whole) + losses * np.log(theirs / whole)
            total += ties * np.log(tie / whole)
        return -total

    best = minimize(minus_log_likelihood, np.zeros(3), tol=1e-10).x
    worth = davidson_worth(counts[None], ["p"])
    assert worth is not None
    assert worth.mean == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)


def test_a_model_that_always_wins_has_a_worth_of_one() -> None:
    worth = davidson_worth(np.tile([[[1.0, 0.0, 0.0]] * 2], (30, 1, 1)), range(30), resamples=200)
    assert worth is not None
    assert worth.mean > 0.999
