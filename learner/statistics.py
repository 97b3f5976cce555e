"""What a step's batch says about the rollout: rewards, the judge's health, ages, lengths. No torch: the report needs none."""

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from dynalign.learner.batch import TrainingBatch
from dynalign.learner.score_health import score_length_correlation, score_saturation_fraction


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _std(scores_G: Sequence[float | None]) -> float | None:
    parsed = [score for score in scores_G if score is not None]
    return stdev(parsed) if len(parsed) > 1 else None


def _ages(batch: TrainingBatch, step: int) -> list[tuple[int, int]]:
    """(age in versions, tokens) per version span: the policy that step `step` improves is version `step` - 1."""
    spans = [span for spans in batch.candidates("spans") for span in spans]
    return [(step - 1 - span["version"], span["end"] - span["start"]) for span in spans]


def batch_statistics(batch: TrainingBatch, step: int) -> dict[str, float | int | None]:
    """The step's metrics that need no model, under their names in `metrics.jsonl`; None where there is nothing to measure.

    reward_mean: over parsed candidates, points. reward_std: mean over groups of the std (n - 1) within the group, points.
    score_length_correlation: with the length of what the judge read, in characters, not with the thinking before it.
    internalization_gap: mean over probed tokens of log π(y|s,x) - log π(y|x), nats.
    staleness_mean, staleness_max: age of the trained tokens in versions, every token weighing the same.
    """
    scores_N, lengths_N = batch.candidates("score"), batch.lengths_N
    ages = _ages(batch, step)
    aged_tokens = sum(tokens for _, tokens in ages)
    probed_tokens = sum(tokens or 0 for tokens in batch.candidates("gap_tokens"))
    return {
        "reward_mean": _mean(scores_N),
        "reward_std": _mean(_std(group.scores_G) for group in batch.groups_P),
        "score_saturation_fraction": score_saturation_fraction(scores_N),
        "unparsed_fraction": _mean(float(status == "unparsed") for status in batch.candidates("status")),
        "digit_mass_mean": _mean(batch.candidates("digit_mass")),
        "judge_noise_std": _mean(batch.groups("noise_std")),
        "score_length_correlation": score_length_correlation(
            scores_N, [len(text) for text in batch.candidates("text")]
        ),
        "internalization_gap": sum(gap or 0.0 for gap in batch.candidates("gap_sum_nats")) / probed_tokens
        if probed_tokens
        else None,
        "staleness_mean": sum(age * tokens for age, tokens in ages) / aged_tokens if aged_tokens else None,
        "staleness_max": max((age for age, tokens in ages if tokens), default=None),
        "completion_tokens": sum(lengths_N),
        "completion_length_mean": _mean(lengths_N),
        "truncated_fraction": _mean(
            float(reason == "length") for reason in batch.candidates("finish_reason")
        ),
    }
