import random

from dynalign.dataset.items import ItemKey, SetFilter
from dynalign.dataset.measures.set_filter import make_filter
from tests.worlds.planted_edits import composed, disguised, edited


def test_a_text_enters_once_and_repeats_nothing_that_was_given() -> None:
    chance = random.Random(6)
    new, earlier, held, quiz = composed(4, chance)
    found: SetFilter = make_filter({"last year": [earlier], "held out": [held]}, {"quiz": ["x", quiz]})
    assert found.objection(ItemKey(0, 7), new) is None
    for text, reason, words in (
        (edited(new, chance), "duplicate", "the accepted text of place 7"),
        (edited(earlier, chance), "duplicate", "item 0 of last year"),
        (edited(held, chance), "duplicate", "item 0 of held out"),
        (f"Well. {disguised(quiz, chance)}", "contaminated", "item 1 of quiz"),
    ):
        objection = found.objection(ItemKey(0, 8), text)
        assert objection is not None
        assert objection.reason == reason
        assert words in objection.detail


def test_a_rejected_text_is_not_in_the_set() -> None:
    filter_ = make_filter(evaluation={"quiz": ["one two three four five six seven eight nine"]})
    text = "one two three four five six seven eight nine ten eleven"
    assert filter_.objection(ItemKey(0, 0), text) is not None
    again = filter_.objection(ItemKey(0, 1), text)
    assert again is not None
    assert again.reason == "contaminated"
