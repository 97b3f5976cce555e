"""Every error that dynalign raises on purpose.

Each is picklable (it crosses Ray actors as an exception) and is also the standard-library error it specializes, so that
``except ValueError`` and ``except TimeoutError`` keep working. A user's mistakes are collected in one `UserError`.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class DynalignError(Exception):
    """Base of all errors raised on purpose. Subclasses pass all their constructor arguments to ``super().__init__``,
    which is what makes them picklable."""


def one_line(error: BaseException) -> str:
    """The error's type and text on one line, for people."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclass(frozen=True)
class Mistake:
    """One user mistake: where it is, what stands there, which rule it breaks, and what to do about it."""

    place: str
    value: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.place}{shown}: {self.rule}; {self.remedy}".replace("\n", " ")


class UserError(DynalignError, ValueError):
    """The user's input breaks one or more rules. The command prints one line per mistake and exits with code 2."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


class DeadlineExceeded(DynalignError, TimeoutError):
    """A wait ran past its deadline."""

    def __init__(self, waiting_for: str, deadline_s: float) -> None:
        self.waiting_for, self.deadline_s = waiting_for, deadline_s
        super().__init__(waiting_for, deadline_s)

    def __str__(self) -> str:
        return f"waited {self.deadline_s:g} s for {self.waiting_for}"


class WorkerHangs(DeadlineExceeded):
    """A rollout worker that gives no sign of life, or does not get ready or done, in its time."""


class LedgerError(DynalignError, RuntimeError):
    """A call that the ledger's rules do not allow in its present state."""


class NoSignal(LedgerError):
    """A step drew its whole refill and still has too few groups whose scores differ."""

    def __init__(self, step: int, present: int, wanted: int, withheld: int) -> None:
        self.step, self.present, self.wanted, self.withheld = step, present, wanted, withheld
        super().__init__(step, present, wanted, withheld)

    def __str__(self) -> str:
        return f"step {self.step}: {self.withheld} groups without signal were withheld, {self.present} of {self.wanted} groups are there"


class StaleLineage(DynalignError, RuntimeError):
    """A writer acts for a lineage that is no longer the one on disk: another driver has taken the run over."""

    def __init__(self, mine: int, on_disk: int) -> None:
        self.mine, self.on_disk = mine, on_disk
        super().__init__(mine, on_disk)

    def __str__(self) -> str:
        return f"lineage {self.mine} was replaced by lineage {self.on_disk}; this writer stops"


class MissingGroups(DynalignError, LookupError):
    """Scored groups whose bytes can be found neither in the object store nor in the spool."""

    def __init__(self, group_ids: tuple[int, ...]) -> None:
        self.group_ids = group_ids
        super().__init__(group_ids)


class RecordError(DynalignError, ValueError):
    """An Arrow record of an unknown or damaged schema, or bytes that do not match their checksum."""


class CheckpointError(DynalignError, RuntimeError):
    """A checkpoint that is not whole, is damaged, or contradicts the configuration."""


class CheckpointWriteFailed(CheckpointError):
    """A checkpoint that could not be written; the ones before it are whole. `where`: the folder of the checkpoints, on whose file
    system `free_bytes` are free (None where that cannot be told)."""

    def __init__(self, step: int, cause: str, where: str, free_bytes: int | None) -> None:
        self.step, self.cause, self.where, self.free_bytes = step, cause, where, free_bytes
        super().__init__(step, cause, where, free_bytes)

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f"; {self.free_bytes / 2**30:.2f} GiB are free there"
        return f"the checkpoint of step {self.step} was not written to {self.where}: {self.cause}{free}"


class MirrorError(DynalignError, RuntimeError):
    """The storage of `checkpoint.mirror` refuses something, or holds checkpoints that are not this run's."""

    def __init__(self, place: str, cause: str) -> None:
        self.place, self.cause = place, cause
        super().__init__(place, cause)

    def __str__(self) -> str:
        return f"mirror {self.place}: {self.cause}"


class WeightsError(DynalignError, RuntimeError):
    """A weight version that does not match its manifest or checksum, or whose load failed."""


class PublisherGone(WeightsError):
    """A weight version whose publisher has died: its successor will publish another one."""


class TransferFailed(WeightsError):
    """A fast transport did not bring a weight version, and nothing of it has been written: the object store brings it."""


class EngineError(DynalignError, RuntimeError):
    """The inference engine is dead or refused a request; it is never used again."""


class LearnerLost(DynalignError, RuntimeError):
    """A learner rank has died or hangs: all ranks start again from the newest whole checkpoint. `how`: `died` or `hung`."""

    def __init__(self, how: str, detail: str) -> None:
        self.how, self.detail = how, detail
        super().__init__(how, detail)

    def __str__(self) -> str:
        return self.detail


class RunFailed(DynalignError, RuntimeError):
    """The run ended before its last step; the message names the cause and the newest whole checkpoint."""


class NotMeasurable(DynalignError, RuntimeError):
    """A benchmark cannot be taken on this machine, for the reason given; nothing has failed that is ours."""
