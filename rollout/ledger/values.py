"""The values of the ledger: leases, scored groups, reservations, commits, counts, and its settings.

What exists once per group is a named tuple: a batch of 1,024 groups is pickled and unpickled in a third of
the time that dataclasses take, and the ledger answers no other call meanwhile. Keys are dataclasses, so that
two keys of different kinds never compare equal.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from dynalign.rollout.prompts import OrderChange, Prompt
from dynalign.run_folder.spool import SpoolEntry

LACKS_SIGNAL = frozenset({"low_signal", "unparsed", "empty"})
"""Withheld reasons that say that the group's scores teach nothing."""

JUDGE_UNREACHABLE = "judge_unreachable"
"""Reason of a group with too few scores because calls of the judge failed, which says nothing about it."""

REPLACED = LACKS_SIGNAL | {JUDGE_UNREACHABLE}
"""Withheld reasons whose groups are replaced by other draws, at most max_refill * P of them per step."""

POISON = "poison"
"""Reason of a group that is withheld because its prompt broke poison_attempts workers."""

UNREADABLE = "unreadable_record"
"""Reason of a group whose file matches its checksum, but cannot be trained on."""

ATTEMPTS_PER_LEDGER = 1000
"""Attempts that one ledger may grant per group.

The next ledger of the lineage numbers its attempts above these. Drains and deaths of one run stay far below;
a group that reaches this number is withheld.
"""

FAILED_ATTEMPTS = 5
"""Attempts at one group that may expire or lose their bytes before it is withheld as `attempts_exhausted`."""

ReportOutcome = Literal["scored", "withheld", "late", "repeated"]
"""`late`: the attempt is not the current one, and its group is never trained.

`repeated`: reported before; nothing changed.
"""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The numbers that the rules need.

    LedgerSettings(prompts_per_step=64, steps=200, max_staleness=2, max_refill=4.0, lease_s=600.0)
    """

    prompts_per_step: int
    """P, the groups of one optimizer step."""
    steps: int
    """Committed steps that finish the run."""
    max_staleness: int
    """Age that a token may have when it is trained, in steps."""
    max_refill: float
    """Groups withheld for one of `REPLACED` that are replaced per step, as a multiple of P."""
    lease_s: float
    """Seconds from the grant of a lease, or its last renewal, to its expiry."""
    poison_attempts: int = 3
    """Workers that a prompt may break, leased alone, before its group is withheld."""


class Draw(Protocol):
    """One draw of a prompt: the prompt's index and the epoch it is drawn in."""

    @property
    def index(self) -> int: ...
    @property
    def epoch(self) -> int: ...


class DrawOrder(Protocol):
    """The fixed order of draws: the same draw number always gives the same prompt."""

    def at(self, draw: int) -> Draw: ...

    def changed(self, change: OrderChange) -> "DrawOrder":
        """The order with one more change, which moves no draw before its first one. Raises ValueError for a
        change that does not fit."""
        ...


class PromptId(NamedTuple):
    """A prompt of one split: PromptId("train", 17)."""

    split: Literal["train", "heldout", "probe"]
    """The split that `position` counts in, or the questions of the capability probe."""
    position: int
    """Position of the prompt in its split, from 0."""


@dataclass(frozen=True, slots=True)
class GroupKey:
    """Names one attempt at one group, so that work of an earlier attempt is recognized: GroupKey(group_id=7,
    attempt=1, lineage=3)."""

    group_id: int
    """Draw number of the group, from 0."""
    attempt: int
    """Number of the lease of this group, rising within a lineage."""
    lineage: int
    """The history of the run that the attempt belongs to. A rollback begins a new one."""


class Lease(NamedTuple):
    """One group to generate and score.

    Lease("train", group_id=7, prompt_index=2, epoch=1, attempt=1, lineage=3, version=4, deadline_s=1600.0,
    worker="rollout-0")
    """

    kind: Literal["train"]
    """What tells this lease from one of another kind."""
    group_id: int
    """Draw number of the group, from 0."""
    prompt_index: int
    """Position of the prompt in the training split."""
    epoch: int
    """Pass over the training split that the draw belongs to, from 0."""
    attempt: int
    """See `GroupKey`."""
    lineage: int
    """See `GroupKey`."""
    version: int
    """Newest published version, in steps.

    The worker holds at least this one before it samples the first token.
    """
    deadline_s: float
    """When the lease expires unless it is renewed, in seconds on the ledger's clock."""
    worker: str
    """Name of the worker that holds it."""
    added: Prompt | None = None
    """The prompt itself where it came to the run after its start, so that the worker does not know it."""

    @property
    def beside(self) -> bool:
        return False

    @property
    def suspect(self) -> bool:
        return True

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.group_id, self.attempt, self.lineage)

    @property
    def prompt(self) -> PromptId:
        return PromptId("train", self.prompt_index)


class ScoredGroup(NamedTuple):
    """A worker's report about one training lease.

    ScoredGroup(7, 1, 3, SpoolEntry("group-7-3-1.arrow", 20480, "0123456789abcdef"), version_min=4,
    version_max=5)
    """

    group_id: int
    """See `GroupKey`."""
    attempt: int
    """See `GroupKey`."""
    lineage: int
    """See `GroupKey`."""
    entry: SpoolEntry
    """The file in the spool that holds the group."""
    version_min: int
    """Version of the group's oldest token, in steps."""
    version_max: int
    """Version of the group's newest token, in steps."""
    withheld_reason: str | None = None
    """Why the group is not to be trained; None if it is."""

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.group_id, self.attempt, self.lineage)


class WithheldScores(NamedTuple):
    """What a worker says of a group that is not to be trained: WithheldScores("governance-004", (2.0, 2.0,
    None), noise_std=0.1)."""

    prompt_id: str
    """Id of the prompt in its source."""
    scores_G: tuple[float | None, ...]
    """The candidates' scores in points; None for one without a score."""
    noise_std: float | None
    """The worker's estimate of the judge's noise, in points; None before it has one."""


class Delivered(NamedTuple):
    """One group of a worker's report."""

    group: ScoredGroup
    """What the worker says about it."""
    handle: object | None
    """Reference to a copy of the file's bytes in the object store; None where the file is the only copy."""
    withheld: WithheldScores | None = None
    """The scores behind `group.withheld_reason`; None for a group that can be trained."""
    completion_tokens: int = 0
    """Tokens of all its candidates."""


class Scored(NamedTuple):
    """A scored group and the age it has: Scored(group, leased_at_version=4)."""

    group: ScoredGroup
    """The worker's report."""
    leased_at_version: int
    """Version of the group's lease, in steps. The group is due at this version + max_staleness."""


class Reservation(NamedTuple):
    """The batch of one step: Reservation(step=5, version=4, groups=(...))."""

    step: int
    """The step that is to train it."""
    version: int
    """The version it is taken at, step - 1."""
    groups: tuple[ScoredGroup, ...]
    """P groups in the order of their due versions; fewer only where `take_present` was asked."""

    @property
    def group_ids(self) -> tuple[int, ...]:
        return tuple(group.group_id for group in self.groups)


class Commit(NamedTuple):
    """What one commit makes durable: Commit(step=5, lineage=3, group_ids=(6, 7), withheld=((8,
    "low_signal"),))."""

    step: int
    """The step that was trained."""
    lineage: int
    """See `GroupKey`."""
    group_ids: tuple[int, ...]
    """The groups that it trained."""
    withheld: tuple[tuple[int, str], ...]
    """(group id, reason) of the groups that were withheld since the commit before."""


class LineageStart(NamedTuple):
    """A ledger was opened: LineageStart(lineage=3, step=4, parent=2)."""

    lineage: int
    """The lineage it was opened for."""
    step: int
    """The committed step that it goes on from; 0 for a new run."""
    parent: int
    """The lineage that committed up to `step`; 0 for a new run, its own where a ledger is restarted within
    its lineage."""


class Break(NamedTuple):
    """A worker died with this group leased: Break(8, 1, 3, prompt_index=11, workers=("rollout-0",
    "rollout-1.2"), poison=False)."""

    group_id: int
    """See `GroupKey`."""
    attempt: int
    """See `GroupKey`."""
    lineage: int
    """See `GroupKey`."""
    prompt_index: int
    """Position of the prompt in the training split."""
    workers: tuple[str, ...]
    """Workers that died with this prompt as their only lease since it was last scored, the newest last."""
    poison: bool
    """Whether these are poison_attempts by now, so that the group is withheld."""


class PromptChange(NamedTuple):
    """The run draws from other prompts: PromptChange(3, 40, "0123456789abcdef", first_draw=640, added=100,
    dropped=(3, 17)).

    It holds in every lineage: what a draw number yields is never undone, also where the run goes back to a
    checkpoint.
    """

    lineage: int
    """The lineage that took the prompts."""
    step: int
    """The last committed step at that time."""
    content_hash: str
    """Of the added prompts, which names their file (`rollout/added_prompts.py`)."""
    first_draw: int
    """The first draw that it counts for."""
    added: int
    """Prompts that were added; their positions follow those that were there."""
    dropped: tuple[int, ...]
    """Positions that are not drawn any more, ascending."""

    @property
    def of_order(self) -> OrderChange:
        return OrderChange(self.first_draw, self.added, frozenset(self.dropped))


@dataclass(frozen=True, slots=True)
class Counts:
    """The terms of the conservation law, issued = pending + leased + scored + trained + withheld, and three
    counters.

    Counts(issued=7, pending=2, leased=1, scored=1, trained=2, withheld=1, requeued=2, late=0, rolled_back=0)
    """

    issued: int
    """Draws that were leased at least once."""
    pending: int
    """Issued groups that wait for another lease."""
    leased: int
    """Groups in the hands of a worker."""
    scored: int
    """Groups that wait for the learner, those of a reserved batch included."""
    trained: int
    """Groups of committed steps."""
    withheld: int
    """Groups that are never trained."""
    requeued: int
    """Times that a group became pending again."""
    late: int
    """Reports that were refused because their attempt was not the current one."""
    rolled_back: int
    """Groups whose progress was undone by a return to a checkpoint."""
