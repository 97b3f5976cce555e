"""The win rate that would be there between answers of equal length and equal markup.

    logit P(win) = θ + φ·(l_A - l_B)/(l_A + l_B) + ψ·(m_A - m_B)/(m_A + m_B + m̄)

where l is the length in characters, m the marks of markup, m̄ their mean. The figure is σ(θ): both
differences at 0. It is a fractional logit (Papke & Wooldridge 1996): what is fitted is the mean over orders
and judges, ties included. Its variance is the sandwich over clusters, so that the figure's uncertainty has
that of φ and ψ.

AlpacaEval's length control (arXiv 2404.04475) needs the difficulty of its own 805 prompts; this one needs
nothing but the answers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynalign.evaluation.pairwise.records import ComparedPrompt
from dynalign.evaluation.statistics.estimates import Clusters, Estimate, student_t

Floats = NDArray[np.float64]
LEAST_PROMPTS = 20
"""With fewer, three coefficients say nothing."""
_SEPARATED = 12.0
"""A coefficient beyond it: the difference decides nearly every verdict by itself, and what is left for
the models cannot be told."""
_MARKUP = re.compile(r"^\s{0,3}(?:#{1,6}\s|[-*+]\s|\d+[.)]\s|>|```)|\*\*|__|`[^`\n]+`|\|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate at equal length and markup.

    Example: `LengthControlled(Estimate(0.56, 0.44, 0.67, 100), 2.1, 0.2, 31.5, False)`.
    """

    estimate: Estimate
    """The win rate with its interval over clusters."""
    length: float
    """φ: positive where the judges prefer the longer answer."""
    markup: float
    """ψ: positive where they prefer the answer with more markup."""
    longer: float
    """Characters by which the answers of the model under test are longer, a mean over prompts."""
    separated: bool
    """Whether length or markup decides by itself, so that the estimate cannot be relied on."""


def length_controlled(compared: Sequence[ComparedPrompt]) -> LengthControlled | None:
    """The controlled win rate; None with fewer than `LEAST_PROMPTS` prompts, or where all values are
    equal."""
    rows = [row for row in compared if row.value is not None]
    values = np.array([row.value for row in rows], dtype=np.float64)
    if len(rows) < LEAST_PROMPTS or values.min() == values.max():
        return None
    features = _features([(row.answer.text, row.other.text) for row in rows])
    longer = float(np.mean([len(row.answer.text) - len(row.other.text) for row in rows]))
    estimate, coefficients = controlled_share(values, features, [row.prompt.cluster for row in rows])
    separated = bool(np.abs(coefficients[1:]).max() > _SEPARATED)
    return LengthControlled(estimate, float(coefficients[1]), float(coefficients[2]), longer, separated)


def controlled_share(values_N: Floats, features_NK: Floats, clusters: Clusters) -> tuple[Estimate, Floats]:
    """σ(θ) with its interval, and (θ, then a coefficient per feature).

    The ridge on the features is weak: it is felt only where a feature separates wins from losses."""
    design = np.column_stack([np.ones(len(values_N)), features_NK])
    ridge = np.diag([0.0, *([1e-3] * features_NK.shape[1])])
    coefficients = np.zeros(design.shape[1])
    for _ in range(100):
        share = 1 / (1 + np.exp(-design @ coefficients))
        hessian = (design * (share * (1 - share))[:, None]).T @ design + ridge
        step = np.linalg.lstsq(hessian, design.T @ (values_N - share) - ridge @ coefficients, rcond=None)[0]
        coefficients += step / max(1.0, float(np.abs(step).max()) / 2)
        if float(np.abs(step).max()) < 1e-9:
            break
    share = 1 / (1 + np.exp(-design @ coefficients))
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    owners = np.array([numbers[cluster] for cluster in clusters])
    scores = np.zeros((len(numbers), design.shape[1]))
    np.add.at(scores, owners, design * (values_N - share)[:, None])
    bread = np.linalg.pinv((design * (share * (1 - share))[:, None]).T @ design + ridge)
    degrees = len(numbers) - design.shape[1]
    mean = _logistic(float(coefficients[0]))
    if degrees < 1:
        return Estimate(mean, n=len(numbers)), coefficients
    variance = len(numbers) / degrees * float((bread @ scores.T @ scores @ bread)[0, 0])
    half = student_t(degrees) * math.sqrt(max(0.0, variance))
    low = _logistic(float(coefficients[0]) - half)
    high = _logistic(float(coefficients[0]) + half)
    return Estimate(mean, low, high, len(numbers)), coefficients


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, value))))


def markup(text: str) -> int:
    """Marks of headings, lists, quotes, code, tables and bold text."""
    return len(_MARKUP.findall(text))


def _features(pairs: Sequence[tuple[str, str]]) -> Floats:
    lengths = np.array([(len(a), len(b)) for a, b in pairs], dtype=np.float64)
    marks = np.array([(markup(a), markup(b)) for a, b in pairs], dtype=np.float64)
    by_length = (lengths[:, 0] - lengths[:, 1]) / np.maximum(1.0, lengths.sum(axis=1))
    by_marks = (marks[:, 0] - marks[:, 1]) / (marks.sum(axis=1) + max(1.0, float(marks.mean())))
    return np.column_stack([by_length, by_marks])
