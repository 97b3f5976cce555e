"""The split by goal."""

import pytest

from dynalign.dataset.items import Cell, Draft, ItemKey, PromptItem
from dynalign.dataset.split import HELDOUT, is_heldout, splits


def item(place: int, goal: str) -> PromptItem:
    return PromptItem(ItemKey(0, place), Cell("d", "s", "w", "r"), 1, goal, (Draft(f"prompt {place}", {}),))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_the_share_is_kept_to_one_goal_at_every_length(share: float) -> None:
    held = 0
    for index in range(400):
        held += is_heldout(index, share, seed=3)
        assert abs(held - share * (index + 1)) <= 1.0 + 1e-9


def test_no_goal_is_in_both_splits_and_a_set_that_grows_keeps_its_split() -> None:
    goals = [
        f"Goal number {place % 37}." if place % 2 else f"GOAL  number {place % 37}" for place in range(300)
    ]
    found = splits([item(place, goal) for place, goal in enumerate(goals)], 0.2, 1, 1)
    of_goal = {
        goal.lower().replace("  ", " ").rstrip("."): split for goal, split in zip(goals, found, strict=True)
    }
    for goal, split in zip(goals, found, strict=True):
        assert of_goal[goal.lower().replace("  ", " ").rstrip(".")] == split
    assert set(found) == {"train", HELDOUT}
    shorter = splits([item(place, goal) for place, goal in enumerate(goals[:120])], 0.2, 1, 1)
    assert found[:120] == shorter


def test_places_that_share_a_goal_share_its_split() -> None:
    found = splits([item(place, f"goal {place // 5}") for place in range(200)], 0.1, 0, 5)
    assert found.count(HELDOUT) == 20
    assert all(len(set(found[first : first + 5])) == 1 for first in range(0, 200, 5))
