"""The split by goal: no goal is in both splits."""

import hashlib
from collections.abc import Sequence

from dynalign.dataset.items import PromptItem

TRAIN = "train"
HELDOUT = "heldout"


def goal_key(goal: str) -> str:
    """What equal goals have in common: the words, whatever their case and what stands between them."""
    return " ".join("".join(each if each.isalnum() else " " for each in goal.casefold()).split())


def splits(in_set: Sequence[PromptItem], share: float, seed: int, prompts_per_goal: int) -> list[str]:
    """`train` or `heldout` for each item in the set, which is in the order of places.

    Of every stretch of goals that holds one held-out goal on average, one is held out, named by a hash. So
    the share is kept to one goal, and a set that grows moves no prompt to the other split. A goal whose
    words came up before is where it was."""
    split_of: dict[str, str] = {}
    found = []
    for item in in_set:
        index = item.key.place // prompts_per_goal
        split = HELDOUT if is_heldout(index, share, seed) else TRAIN
        found.append(split_of.setdefault(goal_key(item.goal), split))
    return found


def is_heldout(index: int, share: float, seed: int) -> bool:
    """Whether the goal of an index is held out: the one of its stretch that the hash names. A stretch is the
    indices with one value of int(index · share)."""
    if share <= 0.0:
        return False
    if share >= 1.0:
        return True
    stretch = int(index * share)
    begins = _first_index(stretch, share)
    ends = _first_index(stretch + 1, share)
    digest = hashlib.sha256(f"split/{seed}/{stretch}".encode()).digest()
    return index - begins == int.from_bytes(digest[:8], "big") % (ends - begins)


def _first_index(stretch: int, share: float) -> int:
    """The least index with int(index · share) = stretch."""
    index = max(0, int(stretch / share) - 1)
    while int(index * share) < stretch:
        index += 1
    return index
