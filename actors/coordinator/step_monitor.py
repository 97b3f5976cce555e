"""What the coordinator measures: a row for each step, held-out evaluations, the capability probe, alarms,
metrics, and the size of the pool."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynalign.actors.coordinator.alarm_watch import AlarmWatch
from dynalign.actors.coordinator.capability import CapabilityProbe
from dynalign.actors.coordinator.exporter import Exporter
from dynalign.actors.coordinator.heldout import HeldoutEvaluation
from dynalign.actors.coordinator.pool_size import Decision, PoolSize
from dynalign.actors.coordinator.step_row import WorkerTotals, step_row
from dynalign.actors.coordinator.worker_group import WorkerGroup
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.actors.run_spec import RunSpec
from dynalign.evaluation.suites.probe import ProbeDraw
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import MetricsLog, Row, read_capability, read_heldout, read_metrics
from dynalign.run_folder.run_status import RunStatus, SupervisionStatus


class StepMonitor:
    """It reads ledger and workers, and changes neither.

    `row` is the newest row of `metrics.jsonl`. `decisions` counts the decisions on the size of the pool, so
    that the supervision knows which one is new; `decision` is the last one. `alarms` have seen that row.
    """

    def __init__(
        self,
        spec: RunSpec,
        prompts: PromptSet,
        ledger: LedgerCalls,
        workers: WorkerGroup,
        node_address: str,
        probe: ProbeDraw | None,
    ) -> None:
        run = spec.run
        folder = Path(spec.run_folder)
        self._run = run
        self._folder = folder
        self._lineage = spec.lineage
        self._ledger = ledger
        self._workers = workers
        self.exporter = Exporter(run, folder, spec.lineage, node_address)
        self._log = MetricsLog(folder, run.tensorboard, spec.lineage)
        points = read_capability(folder) if run.capability.items else {}
        self._capability = CapabilityProbe(run, spec.lineage, spec.step, ledger, self._log, probe, points)
        self.alarms = AlarmWatch(run.alarms, read_metrics(folder))
        known = [
            # What another lineage has evaluated after this step was rolled back.
            item
            for item in read_heldout(folder)
            if item.step <= spec.step or item.lineage == spec.lineage
        ]
        self._heldout = HeldoutEvaluation(run, prompts, spec.lineage, ledger, known)
        self._beside: list[HeldoutItem] = []
        self._ledger_before: Mapping[str, Any] = {}
        self._totals_before = WorkerTotals({})
        self._pool = PoolSize(run.rollout.workers.min, run.rollout.workers.max)
        self._supervision = SupervisionStatus()
        self.row: Row | None = None
        self.decisions = 0
        self.decision = Decision(0, "")
        self.pool_reason = ""

    async def begin(self) -> None:
        """What the first step's figures are counted from."""
        self._totals_before = await self._workers.stats()
        self._ledger_before = asdict(await self._ledger.status())

    def has_row(self, step: int) -> bool:
        """Whether `step` is in `metrics.jsonl`, with all that belongs to it: not at a start, and not if a
        coordinator died before it wrote."""
        there = step in {row["step"] for row in read_metrics(self._folder)}
        return there and not self._capability.lacks_initial(step)

    def evaluation_due(self, step: int) -> bool:
        """Whether training waits for an evaluation after `step`, which was measured: of held-out prompts, or
        by the capability probe."""
        return self._heldout.due(step) or self._capability.waited_for(step)

    async def evaluate(self, step: int) -> list[HeldoutItem]:
        """Held-out prompts, answered by the policy of `step`, and the capability probe, as far as they are
        due."""
        if self._capability.waited_for(step):
            await self._capability.ask(step)
        return await self._heldout.ask(step) if self._heldout.due(step) else []

    async def measure(self, step: int) -> tuple[Mapping[str, Any], WorkerTotals]:
        """Ledger and workers at the end of `step`, before an evaluation; what was answered beside the groups
        is looked at."""
        ledger = await self._ledger.status()
        totals = await self._workers.stats()
        self._beside = await self._heldout.look(step, ledger.evaluation)
        return asdict(ledger), totals

    async def write_row(
        self,
        step: int,
        learned: Mapping[str, Any],
        ages: Iterable[int],
        measured: tuple[Mapping[str, Any], WorkerTotals],
        heldout: list[HeldoutItem],
    ) -> None:
        """The row of `step`, to file and metrics. learned: what the learner measured, empty before step 1.
        ages: of each trained group's oldest token, in versions. measured: see `measure`. heldout: see
        `evaluate`; without any, those that were answered beside the groups count.
        """
        ledger, totals = measured
        capability = await self._capability.look(step)
        answered = heldout or self._beside
        self._log.write_heldout(answered)
        row = step_row(
            step, self._lineage, learned, self._ledger_before, ledger, self._totals_before, totals, answered
        )
        self._ledger_before = ledger
        # What is generated while training waits belongs to no step.
        self._totals_before = await self._workers.stats() if heldout else totals
        row["worker_restarts"] = self._restarts()
        row |= capability
        self.row = self._log.write(row | self.alarms.look(row))
        self.exporter.trained(ages)
        self.exporter.row(self.row)
        self._size_the_pool(self.row)

    def look(self, status: RunStatus) -> None:
        """What the supervision knows, every second."""
        self._supervision = status.supervision
        self.exporter.look(status.state, status.ledger, status.supervision)

    def scale(self, workers: int) -> None:
        """A person wants so many workers."""
        self.decisions += 1
        self.decision = Decision(workers, "dynalign scale")

    def converged(self) -> bool:
        """Whether the held-out reward rises no more."""
        return self._heldout.converged()

    def close(self) -> None:
        """No more rows."""
        self._log.close()

    def _size_the_pool(self, row: Row) -> None:
        """Decides on the number of workers from the step's figures. Not while workers load or drain: the
        figures then say nothing about the size that the pool is on its way to."""
        workers = self._supervision.workers
        settled = len(workers) == len(self._workers) and all(worker.state == "serving" for worker in workers)
        if not settled or not workers or not row.get("step_s") or row.get("rollout_idle_fraction") is None:
            return
        wait_fraction = row["learner_wait_s"] / row["step_s"]
        decision = self._pool.decide(len(workers), wait_fraction, row["rollout_idle_fraction"])
        if decision.wanted != len(workers):
            self.decisions += 1
            self.decision = decision
        self.pool_reason = decision.reason

    def _restarts(self) -> int:
        restarts = self._supervision.restarts
        return sum(count for cause, count in restarts.items() if cause.startswith("worker/"))
