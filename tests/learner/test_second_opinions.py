"""What opinions say beside the scores, on numbers worked by hand."""

import pytest

from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.second_opinions import second_opinion_statistics
from dynalign.rollout.records import Group, Opinion, Verdict
from tests.worlds.tiny_groups import candidate, group, payloads


def found(*groups: Group) -> dict[str, float | None]:
    return second_opinion_statistics(TrainingBatch.of(decode_groups(*payloads(groups)), "group"))


def judged(group_id: int, *scores: float, opinions: list[tuple[Opinion, ...]]) -> Group:
    verdicts = [Verdict(score, "parsed", opinions=each) for score, each in zip(scores, opinions, strict=True)]
    return group(group_id, [3], [candidate([5], verdict.score, verdict=verdict) for verdict in verdicts])


def test_a_batch_of_one_judge_says_nothing() -> None:
    assert set(found(judged(1, 1.0, 2.0, opinions=[(), ()])).values()) == {None}


def test_a_second_judge_is_compared_by_level_and_by_rank_within_groups() -> None:
    def beside(score: float) -> tuple[Opinion, ...]:
        return (Opinion("frozen", score, "parsed", "probe"),)

    same = judged(1, 1.0, 2.0, 3.0, opinions=[beside(0.5), beside(1.0), beside(2.0)])
    reversed_ = judged(2, 1.0, 2.0, 3.0, opinions=[beside(3.0), beside(2.0), beside(1.0)])
    unprobed = judged(3, 4.0, 5.0, opinions=[(), ()])
    figures = found(same, reversed_, unprobed)
    assert figures["second_judge_rank_correlation"] == pytest.approx(0.0)  # 1 and -1
    assert figures["second_judge_gap"] == pytest.approx((0.5 + 1.0 + 1.0 - 2.0 + 0.0 + 2.0) / 6)
    assert figures["frozen_judge_reward_mean"] == pytest.approx((0.5 + 1.0 + 2.0 + 3.0 + 2.0 + 1.0) / 6)


def test_under_a_veto_the_judge_s_own_score_is_compared_and_not_the_lowered_one() -> None:
    opinions = (Opinion("self", 4.0, "parsed"), Opinion("gpt", 1.0, "parsed", "veto"))
    assert found(judged(1, 1.0, 1.0, opinions=[opinions, opinions]))["second_judge_gap"] == 3.0


def test_aspects_are_no_second_judge_and_give_the_spread_of_their_means() -> None:
    def aspects(power: float, knowledge: float) -> tuple[Opinion, ...]:
        return (
            Opinion("self", 3.0, "parsed", "probe"),
            Opinion("self", power, "parsed", "probe", rubric="power"),
            Opinion("self", knowledge, "parsed", "probe", rubric="knowledge"),
        )

    figures = found(judged(1, 1.0, 2.0, opinions=[aspects(1.0, 4.0), aspects(2.0, 5.0)]))
    assert figures["aspect_spread"] == pytest.approx(4.5 - 1.5)
    assert figures["second_judge_gap"] is None


def test_a_ranking_judge_s_liking_for_a_place_is_a_correlation() -> None:
    def at(position: int, score: float) -> tuple[Opinion, ...]:
        return (Opinion("gpt", score, "parsed", position=position),)

    first_is_best = judged(1, 5.0, 2.5, 0.0, opinions=[at(0, 5.0), at(1, 2.5), at(2, 0.0)])
    assert found(first_is_best)["score_position_correlation"] == pytest.approx(-1.0)
    none = judged(1, 5.0, 5.0, 0.0, 0.0, opinions=[at(0, 5.0), at(1, 0.0), at(1, 5.0), at(0, 0.0)])
    assert found(none)["score_position_correlation"] == pytest.approx(0.0)
