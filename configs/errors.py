"""Every error that dynalign raises on purpose.

Each can be pickled, because it crosses Ray actors. Each is also the standard-library error that it
specializes, so that `except ValueError` and `except TimeoutError` work. A user's mistakes are collected in
one `UserError`.
"""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_MISTAKES = 100
"""A file of another kind has a mistake in every line; of more mistakes than this, the rest is counted."""

LONGEST_PLACE = 400
"""Characters of a place that are printed; a path may have 4,095."""
LONGEST_VALUE = 200
"""Characters of a value that are printed."""
_SHORT = reprlib.Repr()
"""Bounded, because a value may be all of a large file."""
_SHORT.maxlevel = 3
_SHORT.maxtuple = 8
_SHORT.maxlist = 8
_SHORT.maxstring = 120
_SHORT.maxother = 200
_SHORT.maxlong = 200


class DynalignError(Exception):
    """Base of all errors raised on purpose.

    Subclasses pass all their constructor arguments to `super().__init__`; without that they could not be
    pickled.
    """


def one_line(error: BaseException) -> str:
    """The error's type and text on one line, for people."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@dataclass(frozen=True)
class Mistake:
    """One mistake in the user's input, printed as one line.

    Example: `Mistake("steps (mine.yaml:3)", 0, "must be at least 1", "set it to 1 or more")`.
    """

    place: str
    """Where it is: the dotted path of a setting with its origin, or a file, an argument, a resource."""
    value: object
    """The value that is there; None where there is none to show."""
    rule: str
    """The rule that it breaks."""
    remedy: str
    """What the user can do about it."""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {_cut(_SHORT.repr(self.value), LONGEST_VALUE)}"
        place = _cut(self.place, LONGEST_PLACE)
        return " ".join(f"{place}{shown}: {self.rule}; {self.remedy}".splitlines())


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


class UserError(DynalignError, ValueError):
    """The user's input breaks one or more rules. The command prints one line per mistake, at most
    SHOWN_MISTAKES and a count of the others, and exits with code 2."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        lines = [str(mistake) for mistake in self.mistakes[:SHOWN_MISTAKES]]
        if (more := len(self.mistakes) - SHOWN_MISTAKES) > 0:
            lines.append(f"{more:,} more mistakes follow; correct those above first")
        return "\n".join(lines)


class DeadlineExceeded(DynalignError, TimeoutError):
    """A wait ran past its deadline."""

    def __init__(self, waiting_for: str, deadline_s: float) -> None:
        self.waiting_for = waiting_for
        self.deadline_s = deadline_s
        super().__init__(waiting_for, deadline_s)

    def __str__(self) -> str:
        return f"waited {self.deadline_s:g} s for {self.waiting_for}"


class WorkerHangs(DeadlineExceeded):
    """A rollout worker that is silent, does not become ready, or does not finish a group before its
    deadline."""


class LedgerError(DynalignError, RuntimeError):
    """A call that the ledger does not allow in its present state."""


class ReplacedLedger(LedgerError):
    """A ledger that was taken for dead and replaced. It refuses every call; callers turn to its successor."""

    def __init__(self, log: str) -> None:
        self.log = log
        super().__init__(log)

    def __str__(self) -> str:
        return f"another ledger has opened {self.log}; this one was replaced"


class UnreadableGroups(LedgerError):
    """The learner could not read what the workers wrote, batch after batch. More groups would not help."""

    def __init__(self, step: int, batches: int, group_ids: tuple[int, ...]) -> None:
        self.step = step
        self.batches = batches
        self.group_ids = group_ids
        super().__init__(step, batches, group_ids)

    def __str__(self) -> str:
        return (
            f"step {self.step}: the learner could not read {self.batches} batches in a row, "
            f"of the last one groups {list(self.group_ids)}; check that its nodes see the run folder's spool"
        )


class NoSignal(LedgerError):
    """A step has used its whole refill (`algorithm.max_refill`) and has too few groups whose scores
    differ, or too few that have scores at all.

    reasons: (reason, groups) of those that were withheld.
    """

    def __init__(
        self,
        step: int,
        present: int,
        wanted: int,
        withheld: int,
        reasons: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.step = step
        self.present = present
        self.wanted = wanted
        self.withheld = withheld
        self.reasons = reasons
        super().__init__(step, present, wanted, withheld, reasons)

    def __str__(self) -> str:
        there = f"{self.present} of {self.wanted} groups are there"
        why = ", ".join(f"{groups} {reason}" for reason, groups in self.reasons)
        told = f"step {self.step}: {self.withheld} groups without signal were withheld, {there}"
        return f"{told} ({why})" if why else told


class StaleLineage(DynalignError, RuntimeError):
    """A newer lineage is on disk than the one that a writer belongs to: another driver has taken the run
    over."""

    def __init__(self, mine: int, on_disk: int) -> None:
        self.mine = mine
        self.on_disk = on_disk
        super().__init__(mine, on_disk)

    def __str__(self) -> str:
        return f"lineage {self.mine} was replaced by lineage {self.on_disk}; this writer stops"


class MissingGroups(DynalignError, LookupError):
    """Scored groups whose bytes are neither in the object store nor in the spool."""

    def __init__(self, group_ids: tuple[int, ...]) -> None:
        self.group_ids = group_ids
        super().__init__(group_ids)


class RecordError(DynalignError, ValueError):
    """An Arrow record of an unknown or damaged schema, or bytes that do not match their checksum."""


class UntrainableGroups(RecordError):
    """Scored groups whose records are damaged or hold values that cannot be trained on. The other groups of
    the step are not at fault.

    causes: group id → a sentence that names record and field.
    """

    def __init__(self, causes: dict[int, str]) -> None:
        self.causes = causes
        super().__init__(causes)

    @property
    def group_ids(self) -> tuple[int, ...]:
        """The groups, in ascending order."""
        return tuple(sorted(self.causes))

    def __str__(self) -> str:
        first = self.causes[self.group_ids[0]]
        more = len(self.causes) - 1
        return f"{first} (and {more} more groups)" if more else first


class CheckpointError(DynalignError, RuntimeError):
    """A checkpoint that is incomplete or damaged, or that contradicts the configuration."""


class CheckpointWriteFailed(CheckpointError):
    """A checkpoint that could not be written; the ones before it are complete.

    where: the folder of the checkpoints. free_bytes: what is free on its file system, None where that is
    unknown.
    """

    def __init__(self, step: int, cause: str, where: str, free_bytes: int | None) -> None:
        self.step = step
        self.cause = cause
        self.where = where
        self.free_bytes = free_bytes
        super().__init__(step, cause, where, free_bytes)

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f"; {self.free_bytes / 2**30:.2f} GiB are free there"
        return f"the checkpoint of step {self.step} was not written to {self.where}: {self.cause}{free}"


class MirrorError(DynalignError, RuntimeError):
    """The storage of `checkpoint.mirror` refuses something, or holds checkpoints of another run.

    address: that of the run's folder in the storage.
    """

    def __init__(self, address: str, cause: str) -> None:
        self.address = address
        self.cause = cause
        super().__init__(address, cause)

    def __str__(self) -> str:
        return f"mirror {self.address}: {self.cause}"


class WeightsError(DynalignError, RuntimeError):
    """A weight version that does not match its manifest or checksum, or that could not be loaded."""


class PublisherGone(WeightsError):
    """The publisher of a weight version has died. The one that replaces it will publish another version."""


class TransferFailed(WeightsError):
    """A fast transport failed before it wrote any of a weight version. The object store is used instead."""


class EngineError(DynalignError, RuntimeError):
    """The inference engine is dead. It is not used again."""


class RequestRefused(EngineError):
    """The inference engine refused one request, and would again. It goes on with others."""


class EndpointError(DynalignError, RuntimeError):
    """A question to a model had no answer. Base of the ways in which that happens.

    address: the endpoint or pool that was asked. cause: a sentence without keys, headers or the question's
    text.
    """

    def __init__(self, address: str, cause: str) -> None:
        self.address = address
        self.cause = cause
        super().__init__(address, cause)

    def __str__(self) -> str:
        return f"{self.address}: {self.cause}"


class EndpointRefused(EndpointError):
    """The endpoint refuses, and would again: a wrong key, an unknown model, a question it cannot take."""


class EndpointUnreachable(EndpointError, TimeoutError):
    """Nothing answered until the deadline, all retries included."""


class BudgetReached(EndpointError):
    """The next question would exceed the budget of tokens or money. Raising the budget continues."""


class JournalError(EndpointError):
    """The file of answers, whose path stands for the address, could not be read or written, or hangs. No
    answer is used that is not in it."""


class LearnerLost(DynalignError, RuntimeError):
    """A learner rank has died or hangs; all ranks start again from the newest complete checkpoint.

    how: `died` or `hung`. detail: a sentence.
    """

    def __init__(self, how: str, detail: str) -> None:
        self.how = how
        self.detail = detail
        super().__init__(how, detail)

    def __str__(self) -> str:
        return self.detail


class StepNotFinite(DynalignError, FloatingPointError):
    """A learner step whose loss or gradient is not finite. It has changed nothing: weights, optimizer and
    version are those of the step before, and the same step can be prepared with other groups.

    All ranks raise it. loss, grad_norm: sums over all ranks.
    """

    def __init__(self, step: int, loss: float, grad_norm: float) -> None:
        self.step = step
        self.loss = loss
        self.grad_norm = grad_norm
        super().__init__(step, loss, grad_norm)

    def __str__(self) -> str:
        return f"step {self.step}: loss {self.loss}, gradient norm {self.grad_norm}; nothing was updated"


class RunFailed(DynalignError, RuntimeError):
    """The run ended before its last step. The message names the cause."""


class NotMeasurable(DynalignError, RuntimeError):
    """A benchmark cannot run on this machine, for the reason given; dynalign itself has not failed."""
