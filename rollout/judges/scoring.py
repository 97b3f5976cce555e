"""The arithmetic of scores: from a judge's answer to a number, and from a group's numbers to its signal."""

import json
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal

from dynalign.rollout.records import HIGHEST_SCORE

LEAST_SIGNAL_STD = 1e-3
"""Points. A smaller spread within a group is rounding of the engine's log-probabilities."""

Aggregation = Literal["mean", "min", "geometric_mean"]


def expected_score(digit_logprobs_6: Sequence[float]) -> tuple[float, float, list[float]]:
    """The expectation of a one-token judge over the digits 0 to 5, which is finer than its most likely digit.

    digit_logprobs_6: raw log-probabilities of the tokens "0" to "5", in nats over the whole vocabulary.

    Returns (score, digit_mass, q_6): q = softmax over the six, score = Σ k·q(k) in [0, 5], and digit_mass
    = Σ exp, the probability that the judge answers with a digit at all. Raises ValueError unless there are
    six values, one of them finite, and no NaN or +inf.
    """
    highest = max(digit_logprobs_6, default=-math.inf)
    complete = len(digit_logprobs_6) == HIGHEST_SCORE + 1
    if not complete or not math.isfinite(highest) or any(map(math.isnan, digit_logprobs_6)):
        rule = "six log-probabilities, one of them finite, are needed"
        raise ValueError(f"{rule}; got {list(digit_logprobs_6)}")
    unnormalized_6 = [math.exp(logprob - highest) for logprob in digit_logprobs_6]
    total = math.fsum(unnormalized_6)
    q_6 = [value / total for value in unnormalized_6]
    score = math.fsum(digit * q for digit, q in enumerate(q_6))
    return score, math.exp(highest) * total, q_6


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is repeated")
    return fields


def parse_verdict(text: str) -> int | None:
    """The integer 0 to 5 in the field `score` of a verdict; None unless that is one JSON object alone.

    Digits in a rationale, around the object or in a nested one are never read. A verdict with a repeated
    field is ambiguous, hence unreadable. Booleans, floats and strings are no scores. Never raises,
    whatever the text.
    """
    try:
        verdict = json.loads(text, object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError):  # json reports 100,000 opening brackets as a RecursionError
        return None
    score = verdict.get("score") if isinstance(verdict, dict) else None
    return score if type(score) is int and 0 <= score <= HIGHEST_SCORE else None


def aggregate_aspects(scores: Sequence[float], how: Aggregation) -> float:
    """One score from the scores of the aspects, each from 0 to 5.

    With `min` and `geometric_mean` a high score in one aspect cannot make up for a 0 in another. Raises
    ValueError without aspects, or with a negative score.
    """
    if not scores or min(scores) < 0:
        raise ValueError(f"aspect scores of 0 and more are needed; got {list(scores)}")
    if how == "mean":
        return fmean(scores)
    if how == "min":
        return float(min(scores))
    return float(math.prod(scores) ** (1 / len(scores)))


def _parsed(scores: Sequence[float | None]) -> list[float]:
    return [score for score in scores if score is not None]


def noise_std(first: Sequence[float | None], again: Sequence[float | None]) -> float | None:
    """The judge's own noise in points: std of the paired differences / √2, for each carries it twice.

    first, again: the two scores of each candidate, in points. Pairs with an unparsed score are left out;
    the result is None with fewer than two pairs. Raises ValueError for sequences of different lengths.
    """
    differences = [b - a for a, b in zip(first, again, strict=True) if a is not None and b is not None]
    return stdev(differences) / math.sqrt(2) if len(differences) > 1 else None


def carries_signal(scores_G: Sequence[float | None], noise_std: float | None) -> bool:
    """Whether the scores spread further than the judge's noise explains: std (n - 1) ≥ max(1e-3, 2·noise).

    Only parsed scores count; fewer than two carry no signal. All in points."""
    parsed = _parsed(scores_G)
    return len(parsed) > 1 and stdev(parsed) >= max(LEAST_SIGNAL_STD, 2 * (noise_std or 0.0))


def enough_parsed(scores_G: Sequence[float | None]) -> bool:
    """Whether at least max(2, G/2) candidates have a score, so that their mean can be the baseline."""
    return len(_parsed(scores_G)) >= max(2, len(scores_G) / 2)
