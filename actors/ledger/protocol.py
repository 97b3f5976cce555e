"""The ledger's methods, as coordinator and workers call them.

`LedgerActor` implements them, `LedgerLink` calls it.
"""

from collections.abc import Sequence
from typing import Protocol

from dynalign.actors.ledger.ledger_spec import Batch, LedgerAnswer
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.remote import RemoteMethod
from dynalign.endpoint.base import Question
from dynalign.rollout.ledger.evaluation_leases import (
    EvaluationItem,
    EvaluationResult,
    PoisonedItem,
)
from dynalign.rollout.ledger.kinds import AnyKey
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeResult
from dynalign.rollout.ledger.values import Break, Delivered, GroupKey, ReportOutcome
from dynalign.rollout.weights.version import WeightVersion

Known = tuple[int, int] | None
"""(lineage, step) of the newest version that a worker knows; None if it does not ask for one."""


class LedgerCalls(Protocol):
    """`wait_s` and `deadline_s` are seconds from the call.

    `LedgerActor` says what each method does and raises.
    """

    # Workers

    async def lease(
        self,
        worker: str,
        max_groups: int,
        wait_s: float,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> LedgerAnswer: ...

    async def report(
        self,
        worker: str,
        delivered: Sequence[Delivered],
        max_groups: int = 0,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> LedgerAnswer: ...

    async def renew(self, worker: str, keys: Sequence[AnyKey]) -> list[AnyKey]: ...

    async def withhold(self, worker: str, key: GroupKey, reason: str) -> ReportOutcome: ...

    async def report_evaluation(self, worker: str, result: EvaluationResult) -> str: ...

    async def report_probe(self, worker: str, result: ProbeResult) -> str: ...

    async def wait_version(
        self, worker: str, known: tuple[int, int], wait_s: float
    ) -> WeightVersion | None: ...

    # The coordinator

    async def take(self, step: int, deadline_s: float) -> Batch: ...

    async def take_present(self, step: int, deadline_s: float) -> Batch | None: ...

    async def refill(self) -> None: ...

    async def requeue_missing(self, step: int, group_ids: Sequence[int]) -> None: ...

    async def withhold_unreadable(self, step: int, group_ids: Sequence[int]) -> None: ...

    async def commit(
        self, step: int, version: WeightVersion, group_ids: Sequence[int] | None = None
    ) -> None: ...

    async def offer(self, version: WeightVersion) -> bool: ...

    async def forget(self, step: int, listed: Sequence[str]) -> list[str]: ...

    async def evaluate(
        self, evaluation: int, items: Sequence[EvaluationItem], deadline_s: float
    ) -> tuple[EvaluationResult, ...] | None: ...

    async def probe(self, probe: int, questions: Sequence[Question], deadline_s: float) -> ProbeAnswers: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def end(self, reason: str = "run_ended") -> None: ...

    async def snapshot(self) -> bytes: ...

    async def status(self) -> LedgerStatus: ...


class LedgerHandle(Protocol):
    """The actor's handle, as supervision holds it."""

    start: RemoteMethod[[], None]
    status: RemoteMethod[[], LedgerStatus]
    worker_left: RemoteMethod[[str, bool], list[Break | PoisonedItem]]
