"""What the opinions in the records say beside the scores: aspects, a second judge, the liking for a place.

No function here knows which judge is used. A second judge is one whose whole score stands beside the score of
the record's judge, as a probe or as a veto.
"""

from collections.abc import Iterable
from statistics import fmean

from dynalign.configs.sections.judge import FROZEN
from dynalign.learner.batch import TrainingBatch
from dynalign.learner.consistency import kendall_tau_b
from dynalign.learner.opinions import Opinions, is_second, own_scores, second_scores
from dynalign.learner.score_health import Measured, correlation, within_group_correlation


def second_opinion_statistics(batch: TrainingBatch) -> dict[str, float | None]:
    """Return the step's metrics that come from opinions, under their names in `metrics.jsonl`; None where no
    judge gave them.
    """
    own_PG = [own_scores(group.record) for group in batch.groups_P]
    second_PG = [second_scores(group.record) for group in batch.groups_P]
    pairs_PG = [_measured(own_G, second_G) for own_G, second_G in zip(own_PG, second_PG, strict=True)]
    errors_PG = [
        [None if own is None or second is None else own - second for own, second in zip(*both, strict=True)]
        for both in zip(own_PG, second_PG, strict=True)
    ]
    errors = [error for errors_G in errors_PG for error in errors_G if error is not None]
    taus = [tau for pairs_G in pairs_PG if (tau := kendall_tau_b(pairs_G)) is not None]
    opinions_N: list[Opinions] = batch.candidates("opinions")
    frozen = [
        each["score"]
        for opinions in opinions_N
        for each in opinions
        if each["judge"] == FROZEN and is_second(each) and each["score"] is not None
    ]
    return {
        "frozen_judge_reward_mean": fmean(frozen) if frozen else None,
        "aspect_spread": aspect_spread(opinions_N),
        "second_judge_gap": fmean(errors) if errors else None,
        "second_judge_rank_correlation": fmean(taus) if taus else None,
        "self_bias_correlation": within_group_correlation(
            errors_PG, [group.confidences_G for group in batch.groups_P]
        ),
        "score_position_correlation": position_correlation(opinions_N),
    }


def aspect_spread(opinions_N: Iterable[Opinions]) -> float | None:
    """Return the largest less the smallest mean score of the rubric's aspects, in points; None with fewer
    than two aspects.
    """
    by_aspect: dict[str, list[float]] = {}
    for opinion in (opinion for opinions in opinions_N for opinion in opinions):
        if opinion["rubric"] and opinion["score"] is not None and opinion["role"] != "again":
            by_aspect.setdefault(opinion["rubric"], []).append(opinion["score"])
    means = [fmean(scores) for scores in by_aspect.values()]
    return max(means) - min(means) if len(means) > 1 else None


def position_correlation(opinions_N: Iterable[Opinions]) -> float | None:
    """Return Pearson's correlation of scores with the places at which a ranking judge was shown the
    candidates; None if either does not vary. The places are shuffled, so a judge that likes none has about 0;
    one that likes the first has less.
    """
    every = [each for opinions in opinions_N for each in opinions if each["role"] != "again"]
    shown = [each for each in every if each["position"] is not None]
    return correlation([each["score"] for each in shown], [each["position"] for each in shown])


def _measured(own_G: Measured, second_G: Measured) -> list[tuple[float, float]]:
    """Return the pairs of which both are there."""
    pairs = zip(own_G, second_G, strict=True)
    return [(own, second) for own, second in pairs if own is not None and second is not None]
