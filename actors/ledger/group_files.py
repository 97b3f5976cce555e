"""Where the bytes of scored groups are: copies in the object store, and which files of the spool can go."""

from collections.abc import Iterable, Sequence

from dynalign.actors.ledger.ledger_spec import Batch
from dynalign.rollout.ledger.state import LedgerState
from dynalign.rollout.ledger.values import Commit, Delivered, Reservation
from dynalign.run_folder import layout


class GroupFiles:
    """Of one ledger. Handles are references to the object store, and are never dereferenced here."""

    def __init__(self) -> None:
        self._handles: dict[int, object] = {}
        self._trained: dict[str, int] = {}
        """Name of a spool file to the step that trained it, while a checkpoint may still need the file."""

    def keep(self, delivered: Iterable[Delivered]) -> None:
        """Holds the copies of groups that were scored."""
        self._handles |= {each.group.group_id: each.handle for each in delivered if each.handle is not None}

    def drop(self, group_ids: Iterable[int]) -> None:
        """The copies are not needed any more, or are of no use."""
        for group_id in group_ids:
            self._handles.pop(group_id, None)

    def batch(self, reservation: Reservation) -> Batch:
        """The reservation with the copies of its groups."""
        handles = tuple(self._handles.get(group_id) for group_id in reservation.group_ids)
        return Batch(reservation.step, reservation.version, reservation.groups, handles)

    def train(self, commit: Commit, state: LedgerState) -> None:
        """The groups of `commit` are about to be trained. state: the one before it is applied."""
        scored = state.scored
        for group_id in commit.group_ids:
            if group_id in scored:
                self._trained[scored[group_id].group.entry.name] = commit.step
        self.drop(commit.group_ids)

    def removable(self, state: LedgerState, step: int, listed: Sequence[str]) -> list[str]:
        """The checkpoint of `step` is whole: those spool files of `listed` that only an older checkpoint
        could need.

        The files of groups stay that are scored, leased (the file may be there before its report), or trained
        after `step`: when the run goes back to the checkpoint, a group trained after it is scored again.
        """
        self._trained = {name: trained for name, trained in self._trained.items() if trained > step}
        needed = {scored.group.entry.name for scored in state.scored.values()} | set(self._trained)
        needed |= {
            layout.group_file(lease.group_id, lease.lineage, lease.attempt) for lease in state.leased.values()
        }
        return [name for name in listed if name not in needed]
