"""`withheld.jsonl` as the ledger keeps it: a line for each group that its state has withheld, and no other.

    open     drops the lines of groups that an older history withheld and this one has not, adds bare ones for
             those that its dead predecessor could not tell about
    told     a worker's report: what the line will say beside group and reason
    add      groups of a commit, or of the end
    write    appends them, in a thread

The file only informs. An error of the disk costs its lines until the next ledger opens, and ends nothing.
"""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.values import Delivered
from dynalign.run_folder import withheld_groups
from dynalign.run_folder.withheld_groups import WithheldGroup


class WithheldFile:
    """Of one ledger, which calls all but `open` from its event loop."""

    def __init__(self, run_folder: Path, ledger: Ledger) -> None:
        self._folder = run_folder
        self._ledger = ledger
        self._reports: dict[int, tuple[str, Delivered]] = {}
        self._written: set[int] = set()
        self._waiting: list[WithheldGroup] = []

    def open(self) -> None:
        """Makes the file that of this ledger's state."""
        withheld = dict(self._ledger.state.withheld)
        known = {each.group_id: each for each in withheld_groups.read_what_can_be(self._folder)}
        kept = []
        for group_id, reason in withheld.items():
            before = known.get(group_id)
            same = before is not None and before.reason == reason
            kept.append(before if before is not None and same else self._line(group_id, reason))
        # Also where nothing has changed: the last line may be torn.
        withheld_groups.replace_all(self._folder, sorted(kept, key=lambda each: (each.step, each.group_id)))
        self._written = set(withheld)

    def told(self, worker: str, delivered: Delivered) -> None:
        """A worker's report of a group that is withheld, until `add`."""
        self._reports[delivered.group.group_id] = (worker, delivered)

    def add(self, withheld: Iterable[tuple[int, str]]) -> None:
        """(group id, reason) of what is withheld for good, each once."""
        for group_id, reason in withheld:
            if group_id not in self._written:
                self._written.add(group_id)
                self._waiting.append(self._line(group_id, reason))

    async def write(self) -> None:
        """Appends the lines that wait. Repeated, it writes none twice."""
        lines = self._waiting
        self._waiting = []
        if lines:
            await asyncio.to_thread(withheld_groups.append, self._folder, lines)

    def _line(self, group_id: int, reason: str) -> WithheldGroup:
        draw = self._ledger.order.at(group_id)
        line = WithheldGroup(
            group_id, reason, self._ledger.state.version, self._ledger.lineage, draw.index, draw.epoch,
            time.time(),
        )  # fmt: skip
        if group_id not in self._reports:
            return line
        worker, delivered = self._reports.pop(group_id)
        if delivered.withheld is None or delivered.group.withheld_reason != reason:
            return line
        return line.reported(worker, delivered.group.attempt, *delivered.withheld)
