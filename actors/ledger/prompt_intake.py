"""The ledger takes new prompts at the end of a step.

    prompts.request ─► the set of that hash ─► line in the log, synced ─► new draws ─► request removed

A ledger that dies between two of these finds the request again, and sees in its log whether the set
was taken. A request that cannot be followed is removed with a line in events.jsonl, and ends no run.
Leases of added prompts carry the prompt, since workers know only those with which the run began.
"""

from collections.abc import Sequence
from pathlib import Path

from dynalign.configs.errors import RecordError, one_line
from dynalign.rollout import added_prompts
from dynalign.rollout.added_prompts import AddedPrompts
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.values import Lease
from dynalign.run_folder import requests
from dynalign.run_folder.events import EventLog


class PromptIntake:
    """Of one ledger. prompts_count, prompts_hash: of the training split, and of all prompts, with which the
    run began. Raises RecordError if a set that was taken cannot be read."""

    def __init__(
        self, folder: Path, prompts_count: int, prompts_hash: str, ledger: Ledger, log: LedgerLog
    ) -> None:
        self._folder = folder
        self._prompts_count = prompts_count
        self._prompts_hash = prompts_hash
        self._ledger = ledger
        self._log = log
        self._events = EventLog(folder, lambda: ledger.lineage)
        taken = [change.content_hash for change in ledger.state.prompt_changes]
        self._added = added_prompts.read_all(folder, taken)

    def take(self) -> None:
        """Takes what is asked for, if anything is. Call it between two steps. Raises ReplacedLedger if
        another ledger has opened the log."""
        try:
            content_hash = requests.waiting_prompts(self._folder)
            if content_hash is None:
                return
            self._take(content_hash)
            requests.prompts_settled(self._folder)
        except OSError as error:  # the request stays, and is taken after a later step
            self._tell("cannot be taken now", "disk", one_line(error))

    def _take(self, content_hash: str) -> None:
        try:
            added = added_prompts.read(self._folder, content_hash)
            change = self._ledger.plan_prompts(content_hash, len(added.prompts), added.dropped)
            if change is None:
                return
            self._refuse_foreign(added)
        except (RecordError, ValueError) as error:
            self._tell("refuses prompts", "bad request", one_line(error))
            return
        self._log.append(change, durable=True)
        self._ledger.apply_prompts(change)
        self._added += added.prompts
        counts = f"{len(added.prompts)} added, {len(change.dropped)} dropped"
        detail = f"{counts}, from draw {change.first_draw} on: {added.origin}"
        self._tell("takes prompts", "refresh", detail)

    def _refuse_foreign(self, added: AddedPrompts) -> None:
        """Raises RecordError for a set that was made for another run or another state of it."""
        changes = self._ledger.state.prompt_changes
        before = changes[-1].content_hash if changes else ""
        if added.prompts_hash != self._prompts_hash:
            raise RecordError("the set was made for a run with other prompts")
        if added.after != before:
            raise RecordError("the run has taken other prompts since the set was made")

    def told(self, leases: Sequence[AnyLease]) -> list[AnyLease]:
        """The leases with the prompts that workers do not know."""
        return [self._with_prompt(lease) for lease in leases]

    def _with_prompt(self, lease: AnyLease) -> AnyLease:
        if isinstance(lease, Lease) and lease.prompt_index >= self._prompts_count:
            return lease._replace(added=self._added[lease.prompt_index - self._prompts_count])
        return lease

    def _tell(self, what: str, cause: str, detail: str) -> None:
        self._events.write("ledger", "ledger", what, cause, detail)
