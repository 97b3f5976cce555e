"""A veto lowers and never raises; a probe changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.rollout.judges.second_opinions import with_probe, with_vetoes
from dynalign.rollout.records import Opinion, ParseStatus, Verdict

points = st.floats(0, 5)


@given(own=points, again=st.none() | points, vetoes=st.lists(points, min_size=1, max_size=3))
def test_a_veto_may_lower_a_score_and_never_raises_it(
    own: float, again: float | None, vetoes: list[float]
) -> None:
    said = {f"v{index}": Verdict(score, "parsed") for index, score in enumerate(vetoes)}
    verdict = with_vetoes("self", Verdict(own, "parsed", score_again=again), said)
    assert verdict.score == min(own, *vetoes)
    assert verdict.score_again == (None if again is None else min(again, *vetoes))
    assert verdict.opinions == (
        Opinion("self", own, "parsed"),
        *(Opinion(name, each.score, "parsed", "veto") for name, each in said.items()),
    )


@pytest.mark.parametrize("status", ["unreachable", "unparsed"])
def test_a_veto_that_could_not_be_heard_leaves_no_score_rather_than_one_that_it_might_have_lowered(
    status: ParseStatus,
) -> None:
    verdict = with_vetoes("self", Verdict(4.0, "parsed", score_again=4.0), {"frozen": Verdict(None, status)})
    assert (verdict.score, verdict.score_again, verdict.status) == (None, None, status)
    assert [each.score for each in verdict.opinions] == [4.0, None]


def test_the_aspects_of_a_veto_are_kept_as_its_own() -> None:
    aspects = (Opinion("frozen", 1.0, "parsed", rubric="power"), Opinion("frozen", 3.0, "parsed", rubric="x"))
    frozen = Verdict(2.0, "parsed", opinions=aspects)
    verdict = with_vetoes("self", Verdict(4.0, "parsed"), {"frozen": frozen})
    assert verdict.score == 2.0
    assert [(each.rubric, each.role) for each in verdict.opinions] == [
        ("", "part"),
        ("", "veto"),
        ("power", "veto"),
        ("x", "veto"),
    ]


@given(own=st.none() | points, beside=st.none() | points)
def test_a_probe_stands_beside_and_changes_nothing(own: float | None, beside: float | None) -> None:
    def verdict(score: float | None) -> Verdict:
        return Verdict(score, "unreachable" if score is None else "parsed", digit_mass=0.5)

    probed = with_probe(verdict(own), "frozen", verdict(beside))
    assert (probed.score, probed.status, probed.digit_mass) == (own, verdict(own).status, 0.5)
    assert probed.opinions == (Opinion("frozen", beside, verdict(beside).status, "probe"),)
