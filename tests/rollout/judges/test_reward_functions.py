"""The verifiable rewards, by hand."""

import pytest

from dynalign.rollout.judges.reward_functions import short_question, short_words


def test_a_short_question_scores_half_for_its_mark_and_half_for_brevity() -> None:
    assert short_question("", "") == 0.0
    assert short_question("", "Why?") == 5.0
    assert short_question("", "why " * 15) == 2.5
    assert short_question("", "why " * 18 + "? ") == 2.5 + 2.5 * (2 - 19 / 15)
    assert short_question("", "why " * 30) == 0.0


def test_short_words_score_by_their_share_without_their_punctuation() -> None:
    assert short_words("", "") == 0.0
    assert short_words("", "Go now, my dear (dear) friend.") == 5.0 * 5 / 6
    assert short_words("", "Nothing") == 0.0


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("What do you need?", 5.0),
        ("", 0.0),
        ("word " * 15, 2.5),
        ("word " * 30, 0.0),
        ("word " * 29 + "why?", 2.5),
        ("word " * 22 + "?", 2.5 + 2.5 * (2 - 23 / 15)),
    ],
)
def test_the_short_question_reward_by_hand(completion: str, score: float) -> None:
    assert short_question("", completion) == pytest.approx(score)
