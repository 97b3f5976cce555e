"""The ledger's methods for its callers, typed, over one abstract `ask`: `LedgerLink` finds the actor, a test
answers itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dynalign.actors.ledger.ledger_spec import Batch, LedgerAnswer
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.ledger.protocol import Known, LedgerCalls
from dynalign.endpoint.base import Question
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationResult
from dynalign.rollout.ledger.kinds import AnyKey
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeResult
from dynalign.rollout.ledger.values import Delivered, GroupKey, ReportOutcome
from dynalign.rollout.weights.version import WeightVersion


class LedgerClient(ABC):
    """Implements `LedgerCalls`. `wait_s` and `deadline_s` are seconds from the call."""

    @abstractmethod
    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        """The answer of the ledger's `method`. wait_s: how long the call itself may wait inside the
        ledger."""

    async def lease(
        self,
        worker: str,
        max_groups: int,
        wait_s: float,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> LedgerAnswer:
        answer = await self.ask("lease", worker, max_groups, wait_s, holds_other_leases, known, wait_s=wait_s)
        return cast(LedgerAnswer, answer)

    async def report(
        self,
        worker: str,
        delivered: Sequence[Delivered],
        max_groups: int = 0,
        holds_other_leases: bool = False,
        known: Known = None,
    ) -> LedgerAnswer:
        answer = await self.ask("report", worker, delivered, max_groups, holds_other_leases, known)
        return cast(LedgerAnswer, answer)

    async def renew(self, worker: str, keys: Sequence[AnyKey]) -> list[AnyKey]:
        return cast(list[AnyKey], await self.ask("renew", worker, keys))

    async def withhold(self, worker: str, key: GroupKey, reason: str) -> ReportOutcome:
        return cast(ReportOutcome, await self.ask("withhold", worker, key, reason))

    async def report_evaluation(self, worker: str, result: EvaluationResult) -> str:
        return cast(str, await self.ask("report_evaluation", worker, result))

    async def report_probe(self, worker: str, result: ProbeResult) -> str:
        return cast(str, await self.ask("report_probe", worker, result))

    async def wait_version(self, worker: str, known: tuple[int, int], wait_s: float) -> WeightVersion | None:
        answer = await self.ask("wait_version", worker, known, wait_s, wait_s=wait_s)
        return cast(WeightVersion | None, answer)

    async def take(self, step: int, deadline_s: float) -> Batch:
        return cast(Batch, await self.ask("take", step, deadline_s, wait_s=deadline_s))

    async def take_present(self, step: int, deadline_s: float) -> Batch | None:
        return cast(Batch | None, await self.ask("take_present", step, deadline_s, wait_s=deadline_s))

    async def refill(self) -> None:
        await self.ask("refill")

    async def requeue_missing(self, step: int, group_ids: Sequence[int]) -> None:
        await self.ask("requeue_missing", step, group_ids)

    async def withhold_unreadable(self, step: int, group_ids: Sequence[int]) -> None:
        await self.ask("withhold_unreadable", step, group_ids)

    async def commit(self, step: int, version: WeightVersion, group_ids: Sequence[int] | None = None) -> None:
        await self.ask("commit", step, version, group_ids)

    async def offer(self, version: WeightVersion) -> bool:
        return cast(bool, await self.ask("offer", version))

    async def forget(self, step: int, listed: Sequence[str]) -> list[str]:
        return cast(list[str], await self.ask("forget", step, listed))

    async def evaluate(
        self, evaluation: int, items: Sequence[EvaluationItem], deadline_s: float
    ) -> tuple[EvaluationResult, ...] | None:
        answer = await self.ask("evaluate", evaluation, items, deadline_s, wait_s=deadline_s)
        return cast(tuple[EvaluationResult, ...] | None, answer)

    async def probe(self, probe: int, questions: Sequence[Question], deadline_s: float) -> ProbeAnswers:
        answer = await self.ask("probe", probe, questions, deadline_s, wait_s=deadline_s)
        return cast(ProbeAnswers, answer)

    async def pause(self) -> None:
        await self.ask("pause")

    async def resume(self) -> None:
        await self.ask("resume")

    async def end(self, reason: str = "run_ended") -> None:
        await self.ask("end", reason)

    async def snapshot(self) -> bytes:
        return cast(bytes, await self.ask("snapshot"))

    async def status(self) -> LedgerStatus:
        return cast(LedgerStatus, await self.ask("status"))


if TYPE_CHECKING:

    def _implements(client: LedgerClient) -> LedgerCalls:
        return client
