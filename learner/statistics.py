"""Metrics of a step that need only its batch: rewards, the judge's health, ages, lengths. Imports no
torch."""

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean, stdev

from dynalign.learner.attack_shapes import injection_fraction
from dynalign.learner.batch import TrainingBatch
from dynalign.learner.score_health import (
    correlation,
    score_saturation_fraction,
    within_group_correlation,
    within_group_variance,
)
from dynalign.learner.second_opinions import second_opinion_statistics


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _std(scores_G: Sequence[float | None]) -> float | None:
    parsed = [score for score in scores_G if score is not None]
    return stdev(parsed) if len(parsed) > 1 else None


def _ages(batch: TrainingBatch, step: int) -> list[tuple[int, int]]:
    """Return (age in versions, tokens) of each version span. Step `step` updates version `step` - 1."""
    spans = [span for spans in batch.candidates("spans") for span in spans]
    return [(step - 1 - span["version"], span["end"] - span["start"]) for span in spans]


def batch_statistics(batch: TrainingBatch, step: int) -> dict[str, float | int | None]:
    """Return the step's metrics that need no model, under their names in `metrics.jsonl`; None where nothing
    was measured.
    """
    scores_N = batch.candidates("score")
    lengths_N = batch.lengths_N
    # The judge reads the answer without the reasoning before it, and so do these correlations.
    characters_PG = [group.characters_G for group in batch.groups_P]
    scores_PG = [group.scores_G for group in batch.groups_P]
    confidences_PG = [group.confidences_G for group in batch.groups_P]
    ages = _ages(batch, step)
    aged_tokens = sum(tokens for _, tokens in ages)
    probed_tokens = sum(tokens or 0 for tokens in batch.candidates("gap_tokens"))
    # Σ over the probed tokens of log π(y|s,x) - log π(y|x), nats
    gap_sum_nats = sum(gap or 0.0 for gap in batch.candidates("gap_sum_nats"))
    return second_opinion_statistics(batch) | {
        "reward_mean": _mean(scores_N),
        # the mean over groups of the standard deviation (n - 1) inside the group
        "reward_std": _mean(_std(group.scores_G) for group in batch.groups_P),
        "score_saturation_fraction": score_saturation_fraction(scores_N),
        "unparsed_fraction": _mean(float(status == "unparsed") for status in batch.candidates("status")),
        "digit_mass_mean": _mean(batch.candidates("digit_mass")),
        "judge_noise_std": _mean(batch.groups("noise_std")),
        "score_length_correlation": correlation(scores_N, [*chain.from_iterable(characters_PG)]),
        "score_length_correlation_within": within_group_correlation(scores_PG, characters_PG),
        "score_confidence_correlation": within_group_correlation(scores_PG, confidences_PG),
        "score_variance_within": within_group_variance(scores_PG),
        "injection_fraction": injection_fraction(batch.candidates("text")),
        "internalization_gap": gap_sum_nats / probed_tokens if probed_tokens else None,
        # every token weighs the same
        "staleness_mean": sum(age * tokens for age, tokens in ages) / aged_tokens if aged_tokens else None,
        "staleness_max": max((age for age, tokens in ages if tokens), default=None),
        "completion_tokens": sum(lengths_N),
        "completion_length_mean": _mean(lengths_N),
        "truncated_fraction": _mean(
            float(reason == "length") for reason in batch.candidates("finish_reason")
        ),
    }
