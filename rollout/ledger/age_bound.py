"""The age bound as arithmetic: can every outstanding group still be trained before it is too old?

A group leased at version b (the newest version then) is due at b + max_staleness: the last version at which a
batch may still contain it. Batches of P groups leave one after the other. So of the outstanding groups in the
order of their due versions, the i-th (from 0) leaves at version `version + i // P` at the earliest, where
`version` is the one at which the next batch is taken. All of them can be met exactly if none is due before
that. This is the earliest-deadline-first schedule. It is optimal for unit jobs (Jackson 1955): what it cannot
meet, no order can.

Equivalent form: for every k >= 0, at most k * P groups that stay behind are due by version + k.
"""

from collections.abc import Iterable, Mapping


def first_unmeetable(dues: Mapping[int, int], version: int, prompts_per_step: int) -> int | None:
    """The earliest due version that cannot be met when the next batch is taken at `version`; None if all can.

    dues: due version to the number of groups. Of these the last to leave decides, so the work grows with the
    number of due versions, not of groups.
    """
    groups = 0
    for due in sorted(due for due, count in dues.items() if count > 0):
        groups += dues[due]
        if due < version + (groups - 1) // prompts_per_step:
            return due
    return None


def meetable(groups: Iterable[tuple[int, int]], version: int, prompts_per_step: int) -> frozenset[int]:
    """The ids of as many groups as can be met when the next batch is taken at `version`. groups: (due
    version, group id)."""
    kept: list[int] = []
    for due, group_id in sorted(groups):
        if due >= version + len(kept) // prompts_per_step:
            kept.append(group_id)
    return frozenset(kept)
