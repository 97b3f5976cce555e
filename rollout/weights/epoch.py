"""Who takes part when a version is broadcast: the engines that said READY for this epoch in time. Rules only, no clock, no I/O.

gathering   ends when all who asked last time have said READY, or a while after the first one did
members     get their ranks, by name; the same members as last time keep their group
late        whoever asks after that; expected next time, as the members are
broken      a group that failed is never used again
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

GATHER_S = 2.0
"""From the first READY to the last: workers hear of a version within milliseconds of each other, and one busy with a batch of
verdicts is free within a second or so."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that waits for the epoch, with the ranks its engine takes: one per process that holds a part of the model."""

    name: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """group: the name of the members' group. first_rank: of each member's engine, by name; the learner is rank 0."""

    group: str
    first_rank: Mapping[str, int]
    world_size: int


class Membership:
    """One learner's epochs, one after the other."""

    def __init__(self, gather_s: float = GATHER_S) -> None:
        self._gather_s = gather_s
        self._expected: frozenset[str] = frozenset()
        self._members: Sequence[Ready] | None = None
        self._groups = 0

    def gathered(self, ready: Collection[Ready], since_first_s: float) -> bool:
        names = {each.name for each in ready}
        everybody = bool(self._expected) and self._expected <= names
        return bool(names) and (everybody or since_first_s >= self._gather_s)

    def close(self, ready: Collection[Ready]) -> Epoch:
        """The epoch of those who are there. Its group is a new one unless they are the members of a group that lives."""
        members = sorted(ready, key=lambda each: each.name)
        if members != self._members:
            self._members, self._groups = members, self._groups + 1
        first_rank, rank = {}, 1
        for each in members:
            first_rank[each.name] = rank
            rank += each.ranks
        return Epoch(f"group-{self._groups}", first_rank, rank)

    def over(self, asked: Collection[Ready]) -> None:
        """All who asked for the version that is over, in time or late."""
        self._expected = frozenset(each.name for each in asked)

    def broken(self) -> None:
        """The group has failed."""
        self._members = None
