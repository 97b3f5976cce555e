"""The state of every issued group, as the checkpoint keeps it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dynalign.configs.errors import CheckpointError, LedgerError
from dynalign.rollout.ledger.values import Counts, Lease, Scored, ScoredGroup

FORMAT = 1
T = TypeVar("T")


@dataclass(slots=True)
class LedgerState:
    """Every draw number below `issued` is in exactly one place: `pending` (ascending), `leased`, `scored`, `withheld`, or, where
    it is in none of these, trained. `version` is the last committed step, `last_group_ids` what it trained.

    `leased`, `scored` and `withheld` are changed through `hold`, `keep`, `drop`, `withhold` and `release` alone, which count along, so that
    no question of a call needs a walk over all groups.
    """

    version: int = 0
    issued: int = 0
    trained: int = 0
    pending: list[int] = field(default_factory=list)
    leased: dict[int, Lease] = field(default_factory=dict)
    scored: dict[int, Scored] = field(default_factory=dict)
    withheld: dict[int, str] = field(default_factory=dict)
    last_group_ids: tuple[int, ...] = ()
    requeued: int = 0
    late: int = 0
    rolled_back: int = 0
    ended: bool = False
    _of_worker: dict[str, dict[int, None]] = field(default_factory=dict, init=False, compare=False)
    _leased_born: Counter[int] = field(default_factory=Counter, init=False, compare=False)
    _scored_by_lease_version: Counter[int] = field(default_factory=Counter, init=False, compare=False)
    _withheld_for: Counter[str] = field(default_factory=Counter, init=False, compare=False)

    def __post_init__(self) -> None:
        self._withheld_for.update(self.withheld.values())
        leased, scored, self.leased, self.scored = self.leased, self.scored, {}, {}
        for lease in leased.values():
            self.hold(lease)
        for each in scored.values():
            self.keep(each)

    def hold(self, lease: Lease) -> None:
        """The group is leased; its lease before, which was its worker's own, is replaced."""
        if lease.group_id not in self.leased:
            self._of_worker.setdefault(lease.worker, {})[lease.group_id] = None
            self._leased_born[lease.version] += 1
        self.leased[lease.group_id] = lease

    def keep(self, scored: Scored) -> None:
        """The group is scored."""
        self.drop(scored.group.group_id)
        self._scored_by_lease_version[scored.leased_at_version] += 1
        self.scored[scored.group.group_id] = scored

    def drop(self, group_id: int) -> None:
        """The group is neither leased nor scored any more."""
        lease, scored = self.leased.pop(group_id, None), self.scored.pop(group_id, None)
        if lease is not None:
            _count_down(self._leased_born, lease.version)
            held = self._of_worker[lease.worker]
            del held[group_id]
            if not held:
                del self._of_worker[lease.worker]
        if scored is not None:
            _count_down(self._scored_by_lease_version, scored.leased_at_version)

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

    def leases_of(self, worker: str) -> list[Lease]:
        """In the order in which they were leased."""
        return [self.leased[group_id] for group_id in self._of_worker.get(worker, ())]

    def workers(self) -> Sequence[str]:
        """Those that hold leases."""
        return sorted(self._of_worker)

    def left_behind(self, groups: int, max_staleness: int) -> dict[int, int]:
        """Due version to the number of groups that stay behind when the scored groups that are due first, `groups` of them, leave."""
        left = Counter(self._leased_born)
        for born in sorted(self._scored_by_lease_version):
            leaving = min(groups, self._scored_by_lease_version[born])
            groups -= leaving
            left[born] += self._scored_by_lease_version[born] - leaving
        return {born + max_staleness: count for born, count in left.items()}

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
        places = len(self.pending) + len(self.leased) + len(self.scored) + len(self.withheld)
        if self.issued != self.trained + places:
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
        places = (
            self.scored,
            self.leased,
            set(self.pending),
            self.withheld,
        )  # asked in turn; a run's withheld groups are many
        return [
            each for each in group_ids if each < self.issued and not any(each in place for place in places)
        ]


def _count_down(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]  # else a run's every version would stay


def pack(state: LedgerState, lineage: int) -> dict[str, Any]:
    """The state as plain data (msgpack can carry it). A lease does not outlive its ledger, so only its group's id is kept."""
    withheld: defaultdict[str, list[int]] = defaultdict(list)
    for group_id, reason in sorted(state.withheld.items()):
        withheld[reason].append(group_id)
    return {
        "format": FORMAT,
        "lineage": lineage,
        "version": state.version,
        "issued": state.issued,
        "trained": state.trained,
        "pending": list(state.pending),
        "leased": sorted(state.leased),
        "scored": [[scored.leased_at_version, *scored.group] for _, scored in sorted(state.scored.items())],
        "withheld": dict(withheld),
        "last_group_ids": list(state.last_group_ids),
        "requeued": state.requeued,
        "late": state.late,
        "rolled_back": state.rolled_back,
        "ended": state.ended,
    }


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A snapshot read back: the state without its leases, whose groups are in `leased`, and the lineage that wrote it."""

    state: LedgerState
    leased: tuple[int, ...]
    lineage: int


def unpack(snapshot: Mapping[str, Any]) -> Unpacked:
    """The inverse of `pack`. Raises CheckpointError for an unknown format, missing parts, or counts that break the law."""
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
            scored={
                row[1]: Scored(ScoredGroup(*row[1:]), leased_at_version=row[0]) for row in snapshot["scored"]
            },
            withheld={group_id: reason for reason, ids in snapshot["withheld"].items() for group_id in ids},
            last_group_ids=tuple(snapshot["last_group_ids"]),
            requeued=snapshot["requeued"],
            late=snapshot["late"],
            rolled_back=snapshot["rolled_back"],
            ended=snapshot["ended"],
        )
        leased, lineage = tuple(snapshot["leased"]), int(snapshot["lineage"])
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise CheckpointError(f"ledger snapshot is damaged: {error!r}") from error
    issued = state.trained + len(state.pending) + len(leased) + len(state.scored) + len(state.withheld)
    if issued != state.issued:
        raise CheckpointError(
            f"ledger snapshot is damaged: {state.issued} groups issued, {issued} accounted for"
        )
    return Unpacked(state, leased, lineage)
