"""Three ways to count ties, and the pairs on which both orders agree. Each has its own denominator.

half      a tie is half a win; denominator: prompts
dropped   ties are left out: wins / (wins + losses); denominator: verdicts that decide
davidson  the model of Davidson (1970) with an effect of the order (Davidson & Beaver 1977):

              P(win), P(loss), P(tie)  ∝  exp((θ ± γ)/2), exp(-(θ ± γ)/2), ν

          with +γ where the model under test is shown first; the figure is exp θ/(1 + exp θ), the worth of
          the model beside that of the other one, free of the bias for a place
agree     verdicts that are the same win or loss in both orders; denominator: these pairs
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.pairwise.records import ComparedPrompt, PairVerdicts
from dynalign.evaluation.statistics.auc import share_interval
from dynalign.evaluation.statistics.bootstrap import RESAMPLES, percentile_interval, with_ends
from dynalign.evaluation.statistics.estimates import Clusters, Estimate, ratio_interval

Floats = NDArray[np.float64]
_ORDERS = np.array([1.0, -1.0])
_RIDGE = 1e-6
"""Keeps the estimates finite where one outcome never happens."""
_STEPS = 60


@dataclass(frozen=True, slots=True)
class TieRule:
    """A win rate by one rule: `TieRule("dropped", Estimate(0.71, 0.62, 0.79, 98), 161, "verdicts")`."""

    rule: str
    """`half`, `dropped`, `davidson` or `agree`."""
    estimate: Estimate | None
    """The share, with its interval over clusters; None where the denominator is 0."""
    denominator: int
    """Of how many it is the share."""
    of: str
    """What the denominator counts."""


@dataclass(frozen=True, slots=True)
class OrderAgreement:
    """What both orders say together: `OrderAgreement(41, 22, 5, 32)`."""

    wins: int
    """Pairs that are won in both orders."""
    losses: int
    """Pairs that are lost in both."""
    ties: int
    """Pairs that are a tie in both."""
    differ: int
    """Pairs whose verdict changes with the order."""


def rate_interval(estimate: Estimate | None) -> Estimate | None:
    """A share whose interval stays within 0 and 1.

    Where every unit is the same, Student's t gives no width at all: it is Wilson's interval of the units then
    (`share_interval`)."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return estimate
    if estimate.high - estimate.low < 1e-12:
        units = estimate.n or 0
        return share_interval(min(1.0, max(0.0, estimate.mean)), 0.0, units, units)
    return Estimate(estimate.mean, max(0.0, estimate.low), min(1.0, estimate.high), estimate.n)


def tie_rules(compared: Sequence[ComparedPrompt], half: Estimate | None, seed: int) -> tuple[TieRule, ...]:
    """The four rules side by side. half: the win rate with half a win per tie."""
    both = [
        (row.prompt.cluster, verdicts)
        for row in compared
        for verdicts in row.verdicts_J
        if verdicts.value is not None
    ]
    clusters = [cluster for cluster, _ in both]
    counts = np.array([_counts(verdicts) for _, verdicts in both]).reshape(-1, 2, 3)
    decided_N = counts[:, :, (0, 2)].sum(axis=(1, 2))
    agreeing = [(cluster, each) for cluster, each in both if each.when_first == each.when_second != "tie"]
    won = [float(each.when_first == "win") for _, each in agreeing]
    return (
        TieRule("half", half, sum(row.value is not None for row in compared), "prompts"),
        TieRule("dropped", _ratio(counts[:, :, 0].sum(axis=1), decided_N, clusters), int(decided_N.sum()),
                "verdicts that decide"),
        TieRule("davidson", davidson_worth(counts, clusters, seed), 2 * len(both), "verdicts"),
        TieRule("agree", _ratio(np.array(won), np.ones(len(won)), [cluster for cluster, _ in agreeing]),
                len(won), "pairs on which both orders agree"),
    )  # fmt: skip


def order_agreement(verdicts: Sequence[PairVerdicts]) -> OrderAgreement:
    """Counts the pairs with two readable verdicts."""
    read = [each for each in verdicts if each.value is not None]
    same = [each.when_first for each in read if each.when_first == each.when_second]
    return OrderAgreement(same.count("win"), same.count("loss"), same.count("tie"), len(read) - len(same))


def davidson_worth(
    counts_N23: Floats, clusters: Clusters, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """The worth of the model under test, with an interval by the cluster bootstrap.

    counts_N23: of each pair, for both orders (shown first, shown second), its wins, ties and losses.
    None without a verdict."""
    if not len(counts_N23):
        return None
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    owners = np.array([numbers[cluster] for cluster in clusters])
    by_cluster = np.zeros((len(numbers), 6))
    np.add.at(by_cluster, owners, counts_N23.reshape(-1, 6))

    def worth(weights: Floats) -> Floats:
        return _worth((weights @ by_cluster).reshape(-1, 2, 3))

    whole = float(worth(np.ones((1, len(numbers))))[0])
    return with_ends(whole, percentile_interval(worth, len(numbers), seed, resamples), len(numbers))


def _worth(counts_B23: Floats) -> Floats:
    """exp θ/(1 + exp θ) of each table of counts, by Newton's method on the concave log-likelihood."""
    parameters = np.zeros((len(counts_B23), 3))  # θ, γ, log ν
    design = np.zeros((2, 3, 3))  # order, outcome, parameter
    design[:, 0, 0] = 0.5
    design[:, 2, 0] = -0.5
    design[:, 0, 1] = 0.5 * _ORDERS
    design[:, 2, 1] = -0.5 * _ORDERS
    design[:, 1, 2] = 1.0
    totals = counts_B23.sum(axis=2)
    for _ in range(_STEPS):
        utility = np.einsum("okp,bp->bok", design, parameters)
        utility -= utility.max(axis=2, keepdims=True)
        share = np.exp(utility)
        share /= share.sum(axis=2, keepdims=True)
        gradient = np.einsum("bok,okp->bp", counts_B23 - totals[:, :, None] * share, design)
        gradient -= _RIDGE * parameters
        mean = np.einsum("bok,okp->bop", share, design)
        square = np.einsum("bok,okp,okq->bopq", share, design, design)
        spread = square - mean[:, :, :, None] * mean[:, :, None, :]
        information = np.einsum("bo,bopq->bpq", totals, spread) + _RIDGE * np.eye(3)
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        step /= np.maximum(
            1.0, np.abs(step).max(axis=1, keepdims=True) / 2
        )  # no step over 2: it may overshoot
        parameters += step
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(1 / (1 + np.exp(-parameters[:, 0])))


def _counts(verdicts: PairVerdicts) -> list[list[float]]:
    outcomes = ("win", "tie", "loss")
    return [
        [float(label == each) for each in outcomes] for label in (verdicts.when_first, verdicts.when_second)
    ]


def _ratio(parts_N: Floats, sizes_N: Floats, clusters: Clusters) -> Estimate | None:
    """Σ parts / Σ sizes, its interval over clusters."""
    sums: dict[object, tuple[float, int]] = {}
    for part, size, cluster in zip(parts_N, sizes_N, clusters, strict=True):
        before = sums.get(cluster, (0.0, 0))
        sums[cluster] = (before[0] + float(part), before[1] + int(size))
    return rate_interval(ratio_interval([pair for pair in sums.values() if pair[1]]))
