"""What passes through the ledger: leases, scored groups, reservations, commits, counts.

What there is one of per group is a named tuple: a batch of 1,024 is packed and unpacked in a third of the time that dataclasses take,
and the ledger answers nobody meanwhile.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

LACKS_SIGNAL = frozenset({"low_signal", "unparsed", "empty"})
"""Reasons that say the group's scores teach nothing: such a group is replaced, at most max_refill * P times per step."""

POISON = "poison"
"""The reason of a group that is withheld because its prompt broke poison_attempts workers."""

ATTEMPTS_PER_LEDGER = 1000
"""Attempts that one ledger gives a group, so that those of the ledger that follows it in the lineage can start above all of them.
Far above what drains and deaths ask for in one run; a group that comes here is withheld."""

ReportOutcome = Literal["scored", "withheld", "late", "repeated"]
"""`late`: the attempt is not the current one, its group is never trained. `repeated`: known already, nothing changed."""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The numbers that the rules need.

    prompts_per_step: P, groups per optimizer step. steps: committed steps that finish the run. max_staleness: oldest version
    that a trained token may carry, in steps. max_in_flight: groups leased at the same time. max_refill: groups without signal
    replaced per step, as a multiple of P. lease_s: seconds from lease, or its last renewal, to expiry. max_attempts: attempts at
    one group that may expire or lose their bytes before it is withheld. poison_attempts: workers that a prompt may break.
    """

    prompts_per_step: int
    steps: int
    max_staleness: int
    max_in_flight: int
    max_refill: float
    lease_s: float
    max_attempts: int = 5
    poison_attempts: int = 3


class Draw(Protocol):
    """One draw of a prompt: the prompt's index and the epoch it is drawn in."""

    @property
    def index(self) -> int: ...
    @property
    def epoch(self) -> int: ...


class DrawOrder(Protocol):
    """The fixed order of draws: the same draw number always gives the same prompt."""

    def at(self, draw: int) -> Draw: ...


class GroupKey(NamedTuple):
    """Names one attempt at one group; the fence against late work. The lineage makes attempts of an earlier history differ."""

    group_id: int
    attempt: int
    lineage: int


class Lease(NamedTuple):
    """One group to generate and score. `group_id` is the draw number. `version` is the newest published version: the worker
    holds at least that before its first token. `deadline_s` is on the ledger's clock."""

    kind: Literal["train"]
    group_id: int
    prompt_index: int
    epoch: int
    attempt: int
    lineage: int
    version: int
    deadline_s: float
    worker: str

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.group_id, self.attempt, self.lineage)


class ScoredGroup(NamedTuple):
    """A worker's report about one lease: where the group's bytes are and what the ledger must know about them.

    name, size_bytes, checksum (xxh64, hex): the file in the spool. version_min, version_max: oldest and newest version of any
    token. score_mean, score_std: over the parsed candidates, None where there are too few. withheld_reason: None to be trained.
    """

    group_id: int
    attempt: int
    lineage: int
    name: str
    size_bytes: int
    checksum: str
    version_min: int
    version_max: int
    score_mean: float | None
    score_std: float | None
    withheld_reason: str | None = None

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.group_id, self.attempt, self.lineage)


class Delivered(NamedTuple):
    """One group of a worker's report. handle: an object reference to the bytes of its file, None where the file is the only copy."""

    group: ScoredGroup
    handle: object | None


class Scored(NamedTuple):
    """A scored group and the version at which its lease was born, from which its due version counts."""

    group: ScoredGroup
    leased_at_version: int


class Reservation(NamedTuple):
    """The batch of one step, taken at `version` = step - 1. Shorter than P only where training what is there was asked for."""

    step: int
    version: int
    groups: tuple[ScoredGroup, ...]

    @property
    def group_ids(self) -> tuple[int, ...]:
        return tuple(group.group_id for group in self.groups)


class Commit(NamedTuple):
    """What one commit makes durable: the groups trained by `step`, and (group id, reason) withheld since the commit before."""

    step: int
    lineage: int
    group_ids: tuple[int, ...]
    withheld: tuple[tuple[int, str], ...]


class LineageStart(NamedTuple):
    """A ledger was opened for `lineage`: it goes on from what lineage `parent` had committed up to `step` (0, 0 for a new run;
    a ledger restarted within its lineage is its own parent)."""

    lineage: int
    step: int
    parent: int


class Break(NamedTuple):
    """A worker died with this group in its hands. workers: all that the prompt has broken since it was last scored, this one last.
    poison: they are poison_attempts now, and the group is withheld."""

    group_id: int
    attempt: int
    lineage: int
    prompt_index: int
    workers: tuple[str, ...]
    poison: bool


LogLine = LineageStart | Scored | Commit | Break


@dataclass(frozen=True, slots=True)
class Counts:
    """The conservation law's terms, issued = pending + leased + scored + trained + withheld, and three counters beside it."""

    issued: int
    pending: int
    leased: int
    scored: int
    trained: int
    withheld: int
    requeued: int
    late: int
    rolled_back: int

    @property
    def lawful(self) -> bool:
        return self.issued == self.pending + self.leased + self.scored + self.trained + self.withheld
