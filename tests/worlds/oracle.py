"""A second implementation of the algorithm, from its formulas alone: float64, numpy, one loop per sum.

Nothing here imports the product, so a test that compares the two misses an error only if both make it.
Gradients are the formulas' derivatives, worked out by hand.
"""

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def std(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def advantages(scores_PG: Sequence[Sequence[float | None]], scale: str) -> list[list[float]]:
    """A_i = (r_i - mean) / (std + 1e-4); unparsed candidates are 0 and do not enter mean or std."""
    everything = [score for scores_G in scores_PG for score in scores_G if score is not None]
    result = []
    for scores_G in scores_PG:
        parsed = [score for score in scores_G if score is not None]
        if len(parsed) < 2:
            result.append([0.0 for _ in scores_G])
            continue
        divisor = 1.0 if scale == "none" else std(everything if scale == "batch" else parsed) + 1e-4
        mean = sum(parsed) / len(parsed)
        result.append([0.0 if score is None else (score - mean) / divisor for score in scores_G])
    return result


def aggregate(terms_N_T: Sequence[Sequence[float]], how: str, max_completion_tokens: int) -> float:
    """The mean that each aggregation names, taken directly over ragged per-token terms."""
    if how == "token_mean":
        return sum(sum(terms) for terms in terms_N_T) / sum(len(terms) for terms in terms_N_T)
    if how == "sequence_mean":
        return sum(sum(terms) / len(terms) for terms in terms_N_T) / len(terms_N_T)
    return sum(sum(terms) / max_completion_tokens for terms in terms_N_T) / len(terms_N_T)


def policy_loss(
    new_T: Vector,
    old_T: Vector,
    advantages_T: Vector,
    weights_T: Vector,
    low: float,
    high: float,
    importance_T: Vector,
) -> float:
    total = 0.0
    for new, old, advantage, weight, importance in zip(
        new_T, old_T, advantages_T, weights_T, importance_T, strict=True
    ):
        ratio = exp(new - old)
        clipped = 1 - low if ratio < 1 - low else 1 + high if ratio > 1 + high else ratio
        total += weight * importance * min(ratio * advantage, clipped * advantage)
    return -total


def policy_gradient(
    new_T: Vector,
    old_T: Vector,
    advantages_T: Vector,
    weights_T: Vector,
    low: float,
    high: float,
    importance_T: Vector,
) -> Vector:
    """∂loss/∂log π, [T]: dρ = ρ d log π. It is 0 where the ratio is clipped on the advantage's side."""
    gradient = np.zeros(len(new_T))
    for t in range(len(new_T)):
        ratio = exp(new_T[t] - old_T[t])
        stopped = (advantages_T[t] > 0 and ratio > 1 + high) or (advantages_T[t] < 0 and ratio < 1 - low)
        if not stopped:
            gradient[t] = -weights_T[t] * importance_T[t] * ratio * advantages_T[t]
    return gradient


def taper(old_T: Vector, sampling_T: Vector, advantages_T: Vector) -> Vector:
    """min(1, exp(c - a)) where A < 0."""
    triples = zip(old_T, sampling_T, advantages_T, strict=True)
    return np.array([min(1.0, exp(c - a)) if advantage < 0 else 1.0 for c, a, advantage in triples])


def k2_loss(new_T: Vector, reference_T: Vector, weights_T: Vector) -> float:
    return sum(w * 0.5 * (new - ref) ** 2 for new, ref, w in zip(new_T, reference_T, weights_T, strict=True))


def k2_gradient(new_T: Vector, reference_T: Vector, weights_T: Vector) -> Vector:
    return np.array([w * (new - ref) for new, ref, w in zip(new_T, reference_T, weights_T, strict=True)])


def k3(new_T: Vector, reference_T: Vector) -> Vector:
    return np.array([exp(ref - new) - 1 - (ref - new) for new, ref in zip(new_T, reference_T, strict=True)])


def softmax(logits_TV: Matrix) -> Matrix:
    shifted = np.exp(logits_TV - logits_TV.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def logprobs(logits_TV: Matrix, targets_T: Sequence[int]) -> Vector:
    return np.array([log(row[target]) for row, target in zip(softmax(logits_TV), targets_T, strict=True)])


def entropy(logits_TV: Matrix) -> Vector:
    return np.array([-sum(p * log(p) for p in row if p > 0) for row in softmax(logits_TV)])


def logprobs_gradient(
    hidden_TH: Matrix, weight_VH: Matrix, targets_T: Sequence[int], upstream_T: Vector
) -> tuple[Matrix, Matrix]:
    """Gradients of Σ_t upstream_t · log softmax(W h_t)[target_t] by hidden [T, H] and weight [V, H].

    ∂/∂logits = upstream · (one-hot - p).
    """
    by_logits_TV = -softmax(hidden_TH @ weight_VH.T) * upstream_T[:, None]
    for t, target in enumerate(targets_T):
        by_logits_TV[t, target] += upstream_T[t]
    return by_logits_TV @ weight_VH, by_logits_TV.T @ hidden_TH
