"""Which engines are members of a broadcast: those that said READY in time. Rules only, without clock or I/O.

Needed with several GPUs only; see `broadcast.py`. An *epoch* is the broadcast of one version.

    gathering   until all who asked last time have said READY, or `gather_s` after the first one did
    members     get their ranks in the order of their names; the same members as last time keep their group
    late        whoever asks after that; next time it is waited for, like the members
    broken      a group that failed is never used again
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

GATHER_S = 2.0
"""Seconds from the first READY until members are no longer waited for.

Workers learn of a version within milliseconds of each other, and one that is scoring is free within a
second or so."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker says when it waits for a version. Example: `Ready(name="rollout-3", ranks=2)`."""

    name: str
    """The worker's name."""
    ranks: int
    """Processes of its engine that hold a part of the model: one rank each."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The members of one broadcast.

    Example, two engines of one process each:

        Epoch("group-3", {"rollout-0": 1, "rollout-3": 2}, world_size=3)
    """

    group: str
    """Name of the members' process group."""
    first_rank: Mapping[str, int]
    """Worker's name → rank of its engine's first process; the learner is rank 0."""
    world_size: int
    """Ranks in the group, the learner included."""


class Membership:
    """Decides on the members of one learner's epochs, one epoch after the other."""

    def __init__(self, gather_s: float = GATHER_S) -> None:
        """gather_s: seconds from the first READY until the epoch closes without the rest."""
        self._gather_s = gather_s
        self._expected: frozenset[str] = frozenset()
        self._members: Sequence[Ready] | None = None
        self._groups = 0

    def gathered(self, ready: Collection[Ready], since_first_s: float) -> bool:
        """Whether the epoch can close. since_first_s: seconds since the first READY."""
        names = {each.name for each in ready}
        everybody = bool(self._expected) and self._expected <= names
        return bool(names) and (everybody or since_first_s >= self._gather_s)

    def close(self, ready: Collection[Ready]) -> Epoch:
        """The epoch of those who are ready. Exactly the members of last time keep their group if it works."""
        members = sorted(ready, key=lambda each: each.name)
        if members != self._members:
            self._members = members
            self._groups += 1
        first_rank: dict[str, int] = {}
        rank = 1
        for each in members:
            first_rank[each.name] = rank
            rank += each.ranks
        return Epoch(f"group-{self._groups}", first_rank, rank)

    def over(self, asked: Collection[Ready]) -> None:
        """Ends the epoch. asked: everybody who asked for its version, in time or late; expected next time."""
        self._expected = frozenset(each.name for each in asked)

    def broken(self) -> None:
        """Gives up the present group, after a failure."""
        self._members = None
