"""How well scores tell better answers from worse ones: the area under the ROC curve, clustered by prompt."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dynalign.evaluation.statistics.estimates import Clusters, Estimate, student_t


def auc(
    scores: Sequence[float],
    is_better: Sequence[bool],
    clusters: Clusters,
    pairs: Literal["within", "all"] = "within",
) -> Estimate | None:
    """The probability that a better answer scores above a worse one; a tie counts half.

    clusters: the prompt of each answer. pairs: `within` compares answers to the same prompt, as the advantage
    of GRPO does; `all` compares every better with every worse answer (the usual AUC).

    The variance is that of the clusters' influence, C/(C - 1)·Σ ψ²: for `all` it is DeLong's for clustered
    data (Obuchowski 1997, Biometrics 53:567), for `within` that of a ratio. `share_interval` gives its ends.
    n is the number of prompts with a pair. None without a pair."""
    values = np.asarray(scores, dtype=np.float64)
    better = np.asarray(is_better, dtype=bool)
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    owners = np.array([numbers[cluster] for cluster in clusters], dtype=np.int64)
    if not len(values) == len(better) == len(owners):
        raise ValueError("one score, one label and one cluster per answer are needed")
    owner_better = owners[better]
    owner_worse = owners[~better]
    wins = (np.sign(values[better][:, None] - values[~better]) + 1) / 2
    compared = (owner_better[:, None] == owner_worse) if pairs == "within" else np.ones_like(wins, dtype=bool)
    total = int(compared.sum())
    if not total:
        return None
    area = float(wins[compared].sum() / total)
    # What a pair adds is divided over the prompts of its two answers: the whole of it within one prompt, and
    # one side's mean deviation to each of two.
    excess = np.where(compared, wins - area, 0.0) / total
    influence = np.bincount(owner_better, excess.sum(axis=1), len(numbers))
    if pairs == "all":
        influence += np.bincount(owner_worse, excess.sum(axis=0), len(numbers))
    taking_part = np.unique(
        np.concatenate([owner_better[compared.any(axis=1)], owner_worse[compared.any(axis=0)]])
    )
    n = len(taking_part)
    variance = n / (n - 1) * float((influence**2).sum()) if n > 1 else math.nan
    most = total if pairs == "within" else len(values)
    return share_interval(area, variance, n, most)


def share_interval(share: float, variance: float, clusters: int, most: int) -> Estimate:
    """The 95 % interval of a share between 0 and 1, from its variance over clusters.

    Wilson's score interval with the effective number of observations share·(1 - share)/variance, and
    Student's t with C - 1 degrees of freedom (Korn & Graubard 1998; Franco et al. 2019). It stays within 0
    and 1, and has a width also where every observation is the same.
    most: the effective number is not larger than this, and is this where the variance is 0."""
    if clusters < 2:
        return Estimate(share, n=clusters)
    spread = share * (1 - share)
    effective = min(spread / variance, most) if variance > 0 and spread > 0 else most
    square = student_t(clusters - 1) ** 2
    centre = (share + square / (2 * effective)) / (1 + square / effective)
    half = math.sqrt(square * (spread / effective + square / (4 * effective**2))) / (1 + square / effective)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), clusters)
