"""The state of every issued group, as the checkpoint keeps it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from configs.errors import CheckpointError, LedgerError
from rollout.ledger_values import Counts, Lease, Scored, ScoredGroup

FORMAT = 1


@dataclass(slots=True)
class LedgerState:
    """Every draw number below `issued` is in exactly one place: `pending` (ascending), `leased`, `scored`, `withheld`, or, where
    it is in none of these, trained. `version` is the last committed step, `last_group_ids` what it trained."""

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
        if not self.counts().lawful:
            raise LedgerError(f"the conservation law is broken: {self.counts()}")

    def outstanding(self, max_staleness: int) -> list[tuple[int, int]]:
        """(due version, group id) of every leased and scored group."""
        leased = [(lease.version + max_staleness, i) for i, lease in self.leased.items()]
        return leased + [(scored.born + max_staleness, i) for i, scored in self.scored.items()]

    def earliest(self, groups: int) -> list[Scored]:
        """The scored groups that are due first."""
        return sorted(self.scored.values(), key=lambda scored: (scored.born, scored.group.group_id))[:groups]

    def is_trained(self, group_id: int) -> bool:
        open_or_withheld = (self.pending, self.leased, self.scored, self.withheld)
        return group_id < self.issued and not any(group_id in place for place in open_or_withheld)


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
        "scored": [[scored.born, *astuple(scored.group)] for _, scored in sorted(state.scored.items())],
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
        raise CheckpointError(f"ledger snapshot has format {snapshot.get('format')!r}, this version reads {FORMAT}")
    try:
        state = LedgerState(
            version=snapshot["version"],
            issued=snapshot["issued"],
            trained=snapshot["trained"],
            pending=list(snapshot["pending"]),
            scored={row[1]: Scored(ScoredGroup(*row[1:]), born=row[0]) for row in snapshot["scored"]},
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
        raise CheckpointError(f"ledger snapshot is damaged: {state.issued} groups issued, {issued} accounted for")
    return Unpacked(state, leased, lineage)
