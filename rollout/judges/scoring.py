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
Settlement = Literal["mean", "trimmed_mean"]

GRADES = tuple(range(HIGHEST_SCORE + 1))
"""The scale of the texts that come with dynalign: grades are points."""


def points(grade: float, grades: Sequence[int]) -> float:
    """A grade in points: 5 (g - lowest) / (highest - lowest), linear, the identity on the scale 0 to 5.

    grades: the scale, ascending."""
    return HIGHEST_SCORE * (grade - grades[0]) / (grades[-1] - grades[0])


def grade_of(score: float, grades: Sequence[int]) -> float:
    """The inverse of `points`."""
    return grades[0] + score * (grades[-1] - grades[0]) / HIGHEST_SCORE


def expected_score(
    digit_logprobs_6: Sequence[float], grades: Sequence[int] = GRADES
) -> tuple[float, float, list[float]]:
    """The expectation of a one-token judge over the grades, which is finer than its most likely grade.

    digit_logprobs_6: raw log-probabilities of the tokens of the grades ("0" to "5"), in nats over the whole
    vocabulary. grades: the scale, ascending.

    Returns (score, digit_mass, q_6): q = softmax over the grades, score = Σ k·q(k) in points, in [0, 5], and
    digit_mass = Σ exp, the probability that the judge answers with a grade at all. Raises ValueError unless
    there is a value for each grade, one of them finite, and no NaN or +inf.
    """
    highest = max(digit_logprobs_6, default=-math.inf)
    complete = len(digit_logprobs_6) == len(grades)
    if not complete or not math.isfinite(highest) or any(map(math.isnan, digit_logprobs_6)):
        rule = f"{len(grades)} log-probabilities, one of them finite, are needed"
        raise ValueError(f"{rule}; got {list(digit_logprobs_6)}")
    unnormalized_6 = [math.exp(logprob - highest) for logprob in digit_logprobs_6]
    total = math.fsum(unnormalized_6)
    q_6 = [value / total for value in unnormalized_6]
    return expectation(q_6, grades), math.exp(highest) * total, q_6


def expectation(q_6: Sequence[float], grades: Sequence[int] = GRADES) -> float:
    """Σ k·q(k) in points of a distribution over the grades, ascending. Raises ValueError unless each grade
    has a probability."""
    return points(math.fsum(grade * q for grade, q in zip(grades, q_6, strict=True)), grades)


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is repeated")
    return fields


def _field(text: str, name: str) -> object:
    """A field of a text that is one JSON object alone; None where it is not, or has no such field."""
    try:
        found = json.loads(text, object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError):  # json reports 100,000 opening brackets as a RecursionError
        return None
    return found.get(name) if isinstance(found, dict) else None


def parse_verdict(text: str, grades: Sequence[int] = GRADES) -> int | None:
    """The grade in the field `score` of a verdict; None unless that is one JSON object alone.

    Digits in a rationale, around the object or in a nested one are never read. A verdict with a repeated
    field is ambiguous, hence unreadable. Booleans, floats and strings are no grades. Never raises,
    whatever the text.
    """
    score = _field(text, "score")
    return score if type(score) is int and grades[0] <= score <= grades[-1] else None


def sampled_score(answers: Sequence[str], grades: Sequence[int] = GRADES) -> float | None:
    """The mean of the grades in those verdicts that can be read, in points; None if none can."""
    read = [grade for grade in (parse_verdict(answer, grades) for answer in answers) if grade is not None]
    return points(fmean(read), grades) if read else None


def parse_order(text: str, candidates: int) -> list[int] | None:
    """The numbers 1 to `candidates`, best first, in the field `order` of one JSON object alone; None unless
    each stands there once. Never raises, whatever the text."""
    order = _field(text, "order")
    if not isinstance(order, list) or not all(type(number) is int for number in order):
        return None
    return order if sorted(order) == list(range(1, candidates + 1)) else None


def order_scores(best_first: Sequence[int], shown: Sequence[int], candidates: int) -> dict[int, float]:
    """Index of a candidate → 5 · (candidates behind it) / (G - 1), in points.

    best_first: the numbers of a ranking, from 1, as `parse_order` reads them. shown: the index of the
    candidate that had each number. candidates: G, those included that were not shown and are behind all."""
    step = HIGHEST_SCORE / (candidates - 1)
    behind = {shown[number - 1]: candidates - place for place, number in enumerate(best_first, 1)}
    return {index: step * count for index, count in behind.items()}


def parse_reason(text: str) -> str:
    """The field `rationale` of one JSON object alone; empty where there is none. Never raises."""
    reason = _field(text, "rationale")
    return reason if isinstance(reason, str) else ""


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


def settled(scores: Sequence[float], how: Settlement) -> float:
    """One score from those of several models or stances, in points. `trimmed_mean` leaves out one highest and
    one lowest.

    Raises ValueError without scores, or with fewer than three to trim."""
    if len(scores) < (3 if how == "trimmed_mean" else 1):
        raise ValueError(f"{how} of {len(scores)} scores")
    return fmean(sorted(scores)[1:-1] if how == "trimmed_mean" else scores)


def vetoed(score: float, vetoes: Sequence[float]) -> float:
    """The score, lowered to the lowest veto where that is lower, and never raised. All in points."""
    return min([score, *vetoes])


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
