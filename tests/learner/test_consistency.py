"""Agreement of two judges on the order of a group, on numbers worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.consistency import consistency_weight, kendall_tau_b
from dynalign.rollout.records import Group, Opinion, Verdict
from tests.worlds.tiny_groups import candidate, group, payloads


def test_tau_b_worked_by_hand() -> None:
    assert kendall_tau_b([(1, 1), (2, 2), (3, 3)]) == 1.0
    assert kendall_tau_b([(1, 3), (2, 2), (3, 1)]) == -1.0
    # of six pairs 4 agree and 1 does not; one is tied on the second side: 3 / sqrt(6 · 5)
    assert kendall_tau_b([(1, 1), (2, 2), (3, 2), (4, 1.5)]) == pytest.approx((3 - 2) / (6 * 5) ** 0.5)
    assert kendall_tau_b([(1, 2), (2, 2)]) is None
    assert kendall_tau_b([]) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_tau_b_turns_its_sign_with_one_side_and_is_the_same_for_both(pairs: list[tuple[int, int]]) -> None:
    tau = kendall_tau_b([(float(one), float(other)) for one, other in pairs])
    turned = kendall_tau_b([(float(one), -float(other)) for one, other in pairs])
    swapped = kendall_tau_b([(float(other), float(one)) for one, other in pairs])
    if tau is None or turned is None or swapped is None:
        assert min(len({one for one, _ in pairs}), len({other for _, other in pairs})) < 2
    else:
        assert -1.0 <= tau <= 1.0
        assert (turned, swapped) == (pytest.approx(-tau), pytest.approx(tau))


def test_the_weight_of_a_group_worked_by_hand() -> None:
    assert consistency_weight([1.0, 2.0, 3.0], [0.5, 1.0, 4.0]) == 1.0
    assert consistency_weight([1.0, 2.0, 3.0], [4.0, 1.0, 0.5]) == 0.0
    # two pairs agree, one does not: τ = 1/3
    assert consistency_weight([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("earlier", [[2.0, 2.0, 2.0], [None, None, 2.0], [None, None, None]])
def test_without_an_order_of_the_earlier_judge_the_weight_is_a_half(earlier: list[float | None]) -> None:
    assert consistency_weight([1.0, 2.0, 3.0], earlier) == 0.5


def test_a_candidate_that_one_judge_could_not_score_is_left_out() -> None:
    assert consistency_weight([1.0, None, 2.0, 3.0], [1.0, 0.0, None, 2.0]) == 1.0


def scored(group_id: int, own: list[float], frozen: list[float], role: str) -> Group:
    """Under a veto the score is the lower of the two, and the judge's own is the first opinion."""
    candidates = []
    for mine, theirs in zip(own, frozen, strict=True):
        if role == "veto":
            opinions = (Opinion("self", mine, "parsed"), Opinion("frozen", theirs, "parsed", "veto"))
            verdict = Verdict(min(mine, theirs), "parsed", opinions=opinions)
        else:
            opinions = (Opinion("gpt", mine, "parsed", "probe"), Opinion("frozen", theirs, "parsed", "probe"))
            verdict = Verdict(mine, "parsed", opinions=opinions)
        candidates.append(candidate([5], verdict.score, verdict=verdict))
    return group(group_id, [3], candidates)


@pytest.mark.parametrize("role", ["probe", "veto"])
def test_a_group_s_advantages_shrink_with_the_agreement_of_its_judge_with_the_initial_policy(
    role: str,
) -> None:
    groups = [
        scored(1, [1.0, 2.0, 4.0], [2.0, 3.0, 5.0], role),
        scored(2, [1.0, 2.0, 4.0], [1.0, 3.0, 2.0], role),
        scored(3, [1.0, 2.0, 4.0], [5.0, 3.0, 2.0], role),
    ]
    decoded = decode_groups(*payloads(groups))
    plain = TrainingBatch.of(decoded, "group").advantages_PG
    weighted = TrainingBatch.of(decoded, "group", by_consistency=True).advantages_PG
    for weight, before_G, after_G in zip((1.0, 2 / 3, 0.0), plain, weighted, strict=True):
        assert after_G == pytest.approx([weight * value for value in before_G])
    assert plain[0][2] > 0
