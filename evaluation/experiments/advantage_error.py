"""How far an advantage would move if the other candidates of its group were others: the jackknife."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from dynalign.evaluation.statistics.bootstrap import Floats

EPSILON = 1e-4
"""As in the learner's advantage, (r - mean) / (std + 1e-4)."""
_LEAST = 4
"""Candidates: with three, one of the two others is left out, and the advantage is then ±0.71 whatever the
scores are."""


def advantage_error(groups: Iterable[Sequence[float]]) -> float | None:
    """Root mean square, over all candidates, of the standard error of (r - mean)/(std + 1e-4).

    groups: the scores of each group. For each candidate, every other one is left out once; with K others the
    variance is (K - 1)/K · Σ (A without one - mean of these)² (Efron & Tibshirani 1993, ch. 11). Groups of
    fewer than four scores, and groups that without one candidate have no spread, are left out. None without
    any."""
    total = 0.0
    count = 0
    for group in groups:
        scores = np.array(group, dtype=np.float64)
        if len(scores) < _LEAST or scores.std() <= 0:
            continue
        squares = _squared_errors(scores)
        total += float(squares.sum())
        count += len(squares)
    return math.sqrt(total / count) if count else None


def _squared_errors(scores_G: Floats) -> Floats:
    """The jackknife's variance of each candidate's advantage."""
    size = len(scores_G)
    without_GG = np.broadcast_to(scores_G, (size, size)).copy()
    left_out = np.eye(size, dtype=bool)
    kept = (~left_out).sum(axis=1)
    without_GG[left_out] = 0.0
    mean_G = without_GG.sum(axis=1) / kept
    spread = np.where(left_out, 0.0, without_GG - mean_G[:, None])
    std_G = np.sqrt((spread**2).sum(axis=1) / (kept - 1))
    advantages_GG = (scores_G[None, :] - mean_G[:, None]) / (std_G[:, None] + EPSILON)
    # Row: who is left out. Column: whose advantage. A candidate is never left out of its own.
    advantages_GG[left_out] = np.nan
    others = size - 1
    mean_of_each = np.nanmean(advantages_GG, axis=0)
    found: Floats = (others - 1) / others * np.nansum((advantages_GG - mean_of_each) ** 2, axis=0)
    return found
