"""The age bound as arithmetic: can every outstanding group still be trained before it is too old?

A group born at version b (the newest version when it was leased) is due at b + max_staleness: the last version at which a
batch may still contain it. Batches of P groups leave one after the other, so of the outstanding groups in the order of their
due versions the i-th (from 0) leaves at version `version + i // P` at the earliest, where `version` is the one at which the
next batch is taken. All of them can be met exactly if none is due before that. This is the earliest-deadline-first schedule;
it is optimal for unit jobs (Jackson 1955), so what it cannot meet, no order can. Equivalent to the design's form: for every
k >= 0 at most k * P groups that stay behind are due by v + k.
"""

from collections.abc import Iterable, Mapping


def first_unmeetable(dues: Mapping[int, int], version: int, prompts_per_step: int) -> int | None:
    """The earliest due version that cannot be met when the next batch is taken at `version`; None if all can. dues: due version to the
    number of groups, of which the last to leave decides: there are as many due versions as the bound has, however many groups."""
    groups = 0
    for due in sorted(due for due, count in dues.items() if count > 0):
        groups += dues[due]
        if due < version + (groups - 1) // prompts_per_step:
            return due
    return None


def meetable(groups: Iterable[tuple[int, int]], version: int, prompts_per_step: int) -> frozenset[int]:
    """Of (due version, group id) pairs the ids that can be met when the next batch is taken at `version`; as many as possible."""
    kept: list[int] = []
    for due, group_id in sorted(groups):
        if due >= version + len(kept) // prompts_per_step:
            kept.append(group_id)
    return frozenset(kept)
