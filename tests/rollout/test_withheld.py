import pytest

from dynalign.rollout.records import Opinion, ParseStatus, Verdict
from dynalign.rollout.withheld import first_failed_call, withheld_reason


def verdict(score: float | ParseStatus) -> Verdict:
    return Verdict(None, score) if isinstance(score, str) else Verdict(score, "parsed")


@pytest.mark.parametrize(
    ("scores", "noise", "lengths", "reason"),
    [
        ([1.0, 2.0, 3.0, 4.0], None, [5] * 4, None),
        ([2.0, 2.0, 2.0, 2.0], None, [5] * 4, "low_signal"),
        ([2.0, 2.1, 2.0, 2.1], 0.1, [5] * 4, "low_signal"),
        ([2.0, "unparsed", "unparsed", "unparsed"], None, [5] * 4, "unparsed"),
        ([2.0, "unreachable", "unreachable", "unreachable"], None, [5] * 4, "judge_unreachable"),
        ([2.0, "unreachable", "unparsed", "unparsed"], None, [5] * 4, "judge_unreachable"),
        (["unreachable", "unparsed", "unparsed", "unparsed"], None, [5] * 4, "unparsed"),
        ([2.0, 3.0, "unreachable", "unparsed"], None, [5] * 4, None),
        ([0.0] * 4, None, [0] * 4, "empty"),
    ],
)
def test_a_group_that_teaches_nothing_is_withheld_with_its_reason(
    scores: list[float | ParseStatus], noise: float | None, lengths: list[int], reason: str | None
) -> None:
    assert withheld_reason([verdict(score) for score in scores], noise, lengths) == reason


def test_the_first_failed_call_is_that_of_a_judge_or_of_one_among_several() -> None:
    parts = (Opinion("a", 3.0, "parsed"), Opinion("b", None, "unreachable", text="b is away"))
    unread = Verdict(None, "unparsed", text="I say 5")
    assert first_failed_call([unread, Verdict(None, "unreachable", opinions=parts)]) == "b is away"
    assert first_failed_call([unread, Verdict(None, "unreachable", text="away")]) == "away"
    assert first_failed_call([unread, Verdict(3.0, "parsed")]) is None
