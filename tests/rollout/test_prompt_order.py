"""The order of draws when prompts come and go."""

import pytest

from dynalign.rollout.prompts import OrderChange, PromptOrder


def test_a_change_of_the_prompts_moves_no_draw_before_it_and_begins_a_new_pass() -> None:
    order = PromptOrder(5, 3)
    changed = order.changed(OrderChange(first_draw=7, added=3, dropped=frozenset({0, 4})))
    assert [changed.at(draw) for draw in range(7)] == [order.at(draw) for draw in range(7)]
    passes = [[changed.at(7 + 6 * number + rank) for rank in range(6)] for number in range(3)]
    assert [{drawn.epoch for drawn in each} for each in passes] == [{2}, {3}, {4}]
    assert [sorted(drawn.index for drawn in each) for each in passes] == [[1, 2, 3, 5, 6, 7]] * 3
    assert passes[0] != passes[1]
    assert (changed.positions, changed.dropped) == (8, {0, 4})


def test_two_changes_at_one_draw_are_as_one_and_equal_changes_give_equal_draws() -> None:
    once = PromptOrder(5, 3).changed(OrderChange(7, 3, frozenset({0, 4})))
    twice = PromptOrder(5, 3, (OrderChange(7, 1, frozenset({4})), OrderChange(7, 2, frozenset({0}))))
    assert [twice.at(draw) for draw in range(60)] == [once.at(draw) for draw in range(60)]
    other_seed = PromptOrder(5, 4, once.changes)
    assert [other_seed.at(draw) for draw in range(7, 60)] != [once.at(draw) for draw in range(7, 60)]


@pytest.mark.parametrize(
    "change",
    [
        OrderChange(1, 0, frozenset()),
        OrderChange(9, 1, frozenset({5})),
        OrderChange(9, 0, frozenset(range(4))),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change: OrderChange) -> None:
    """It is earlier than the one before, drops a prompt that is not there, or leaves none."""
    with pytest.raises(ValueError, match="cannot be changed by"):
        PromptOrder(4, 3).changed(OrderChange(2, 0, frozenset())).changed(change)
