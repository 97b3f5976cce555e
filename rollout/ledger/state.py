"""The state of every issued group, as the checkpoint keeps it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dynalign.configs.errors import CheckpointError, LedgerError
from dynalign.rollout.ledger.values import Counts, Lease, PromptChange, Scored, ScoredGroup
from dynalign.run_folder.spool import SpoolEntry

FORMAT = 1
T = TypeVar("T")


@dataclass(slots=True)
class LedgerState:
    """Every draw number below `issued` is in exactly one of `pending`, `leased`, `scored` and `withheld`, or,
    where it is in none of these, trained.

    `leased`, `scored` and `withheld` are changed only through `hold`, `keep`, `drop`, `withhold` and
    `release`. These keep counters up to date, so that no call has to walk over all groups.
    """

    version: int = 0
    """The last committed step."""
    issued: int = 0
    """See `Counts`, as for `trained`, `requeued`, `late` and `rolled_back`."""
    trained: int = 0
    pending: list[int] = field(default_factory=list)
    """Group ids that wait for another lease, ascending."""
    leased: dict[int, Lease] = field(default_factory=dict)
    """Group id to its lease."""
    scored: dict[int, Scored] = field(default_factory=dict)
    """Group id to its report."""
    withheld: dict[int, str] = field(default_factory=dict)
    """Group id to the reason."""
    last_group_ids: tuple[int, ...] = ()
    """The groups that step `version` trained."""
    requeued: int = 0
    late: int = 0
    rolled_back: int = 0
    ended: bool = False
    """Whether nothing is leased or taken any more."""
    prompt_changes: tuple[PromptChange, ...] = ()
    """In the order in which they were taken."""
    _leased_at: Counter[int] = field(default_factory=Counter, init=False, compare=False)
    _scored_at: Counter[int] = field(default_factory=Counter, init=False, compare=False)
    _withheld_for: Counter[str] = field(default_factory=Counter, init=False, compare=False)

    def __post_init__(self) -> None:
        self._withheld_for.update(self.withheld.values())
        for lease in self.leased.values():
            self._leased_at[lease.version] += 1
        for scored in self.scored.values():
            self._scored_at[scored.leased_at_version] += 1

    def hold(self, lease: Lease) -> None:
        """The group is leased."""
        self._leased_at[lease.version] += 1
        self.leased[lease.group_id] = lease

    def keep(self, scored: Scored) -> None:
        """The group is scored."""
        self.drop(scored.group.group_id)
        self._scored_at[scored.leased_at_version] += 1
        self.scored[scored.group.group_id] = scored

    def drop(self, group_id: int) -> None:
        """The group is neither leased nor scored any more."""
        lease = self.leased.pop(group_id, None)
        scored = self.scored.pop(group_id, None)
        if lease is not None:
            _count_down(self._leased_at, lease.version)
        if scored is not None:
            _count_down(self._scored_at, scored.leased_at_version)

    def withhold(self, group_id: int, reason: str) -> None:
        """The group, which is nowhere else, is not to be trained."""
        self.release(group_id)
        self.withheld[group_id] = reason
        self._withheld_for[reason] += 1

    def release(self, group_id: int) -> bool:
        """The group is not withheld any more; whether it was."""
        reason = self.withheld.pop(group_id, None)
        if reason is not None:
            _count_down(self._withheld_for, reason)
        return reason is not None

    def withheld_by_reason(self) -> dict[str, int]:
        return dict(sorted(self._withheld_for.items()))

    def left_behind(self, groups: int, max_staleness: int) -> dict[int, int]:
        """Due version to the number of groups that stay when the `groups` scored groups that are due first
        leave."""
        left = Counter(self._leased_at)
        for version in sorted(self._scored_at):
            leaving = min(groups, self._scored_at[version])
            groups -= leaving
            left[version] += self._scored_at[version] - leaving
        return {version + max_staleness: count for version, count in left.items()}

    def counts(self) -> Counts:
        return Counts(
            issued=self.issued,
            pending=len(self.pending),
            leased=len(self.leased),
            scored=len(self.scored),
            trained=self.trained,
            withheld=len(self.withheld),
            requeued=self.requeued,
            late=self.late,
            rolled_back=self.rolled_back,
        )

    def check_law(self) -> None:
        """Raises LedgerError where the law does not hold."""
        untrained = len(self.pending) + len(self.leased) + len(self.scored) + len(self.withheld)
        if self.issued != self.trained + untrained:
            raise LedgerError(f"the conservation law is broken: {self.counts()}")

    def outstanding(self, max_staleness: int) -> list[tuple[int, int]]:
        """(due version, group id) of every leased and scored group."""
        leased = [(lease.version + max_staleness, i) for i, lease in self.leased.items()]
        return leased + [(scored.leased_at_version + max_staleness, i) for i, scored in self.scored.items()]

    def earliest(self, groups: int) -> list[Scored]:
        """The scored groups that are due first."""
        return sorted(
            self.scored.values(), key=lambda scored: (scored.leased_at_version, scored.group.group_id)
        )[:groups]

    def trained_of(self, group_ids: Sequence[int]) -> list[int]:
        """Those of the groups that are trained."""
        # Looked up in turn instead of united in one set: a run withholds many groups.
        untrained = (self.scored, self.leased, set(self.pending), self.withheld)
        return [
            each for each in group_ids if each < self.issued and not any(each in part for part in untrained)
        ]


def _count_down(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]  # the counter would otherwise keep an entry for every version of the run


def pack(state: LedgerState, lineage: int) -> dict[str, Any]:
    """The state as plain data, for msgpack.

    A lease does not outlive its ledger, so only its group's id is kept.
    """
    withheld: defaultdict[str, list[int]] = defaultdict(list)
    for group_id, reason in sorted(state.withheld.items()):
        withheld[reason].append(group_id)
    changes = [[*change] for change in state.prompt_changes]
    return {
        "format": FORMAT,
        "lineage": lineage,
        "version": state.version,
        "issued": state.issued,
        "trained": state.trained,
        "pending": list(state.pending),
        "leased": sorted(state.leased),
        "scored": [_row(scored) for _, scored in sorted(state.scored.items())],
        "withheld": dict(withheld),
        "last_group_ids": list(state.last_group_ids),
        "requeued": state.requeued,
        "late": state.late,
        "rolled_back": state.rolled_back,
        "ended": state.ended,
        **({"prompt_changes": changes} if changes else {}),
    }


_ROW_WITH_SCORES = 12
"""Length of a row that carries the mean and standard deviation of the scores, which earlier versions wrote
and nothing reads."""


def _row(scored: Scored) -> list[Any]:
    group = scored.group
    entry = group.entry
    return [
        scored.leased_at_version,
        group.group_id,
        group.attempt,
        group.lineage,
        entry.name,
        entry.size_bytes,
        entry.checksum,
        group.version_min,
        group.version_max,
        group.withheld_reason,
    ]


def _scored(row: Sequence[Any]) -> Scored:
    """The inverse of `_row`. Raises ValueError for a row of another length."""
    if len(row) == _ROW_WITH_SCORES:
        row = [*row[:9], row[11]]
    leased_at_version, group_id, attempt, lineage, name, size_bytes, checksum, oldest, newest, reason = row
    entry = SpoolEntry(name, size_bytes, checksum)
    return Scored(ScoredGroup(group_id, attempt, lineage, entry, oldest, newest, reason), leased_at_version)


def _change(row: Sequence[Any]) -> PromptChange:
    """Raises ValueError for a row of another length."""
    lineage, step, content_hash, first_draw, added, dropped = row
    return PromptChange(lineage, step, content_hash, first_draw, added, tuple(dropped))


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A snapshot read back: Unpacked(LedgerState(version=5, issued=10, ...), leased=(8,), lineage=3)."""

    state: LedgerState
    """The state without its leases."""
    leased: tuple[int, ...]
    """Ids of the groups that were leased."""
    lineage: int
    """The lineage that wrote the snapshot."""


def unpack(snapshot: Mapping[str, Any]) -> Unpacked:
    """The inverse of `pack`. Raises CheckpointError for an unknown format, missing parts, or counts that
    break the law."""
    if snapshot.get("format") != FORMAT:
        raise CheckpointError(
            f"ledger snapshot has format {snapshot.get('format')!r}, this version reads {FORMAT}"
        )
    try:
        state = LedgerState(
            version=snapshot["version"],
            issued=snapshot["issued"],
            trained=snapshot["trained"],
            pending=list(snapshot["pending"]),
            scored={row[1]: _scored(row) for row in snapshot["scored"]},
            withheld={group_id: reason for reason, ids in snapshot["withheld"].items() for group_id in ids},
            last_group_ids=tuple(snapshot["last_group_ids"]),
            requeued=snapshot["requeued"],
            late=snapshot["late"],
            rolled_back=snapshot["rolled_back"],
            ended=snapshot["ended"],
            prompt_changes=tuple(map(_change, snapshot.get("prompt_changes", ()))),
        )
        leased = tuple(snapshot["leased"])
        lineage = int(snapshot["lineage"])
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise CheckpointError(f"ledger snapshot is damaged: {error!r}") from error
    issued = state.trained + len(state.pending) + len(leased) + len(state.scored) + len(state.withheld)
    if issued != state.issued:
        raise CheckpointError(
            f"ledger snapshot is damaged: {state.issued} groups issued, {issued} accounted for"
        )
    return Unpacked(state, leased, lineage)
