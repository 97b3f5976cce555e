"""The coordinator: the loop, its controls and its status. It touches no samples.

  train()    take ─► learn ─► publish ─► commit ─► checkpoint when due ─► monitor, one step after the other
             waits for: a whole batch, then the learner     unblocked by: workers' reports; the ranks
  alarms     after each row; one that asks for it pauses or stops the run as a person would
  controls   set a flag that train() reads between two lines; `stop` also ends a wait for a batch
  look()     every second, from the supervision: takes its report, returns the status; waits for nothing

Overlap is elsewhere: workers generate the next groups while the learner steps, as far as the ledger admits
them. All that a coordinator knows can be learned again from ledger and learner, so that another one can take
the place of one that has died (`joins`).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import ray

from dynalign.actors import logs
from dynalign.actors.coordinator.batch_source import BatchSource
from dynalign.actors.coordinator.checkpoints import clear_spool, write_checkpoint
from dynalign.actors.coordinator.learner_group import LearnerGroup
from dynalign.actors.coordinator.loop_controls import (
    LoopControls,
    LoopProgress,
    StopRequested,
    budget_reached,
)
from dynalign.actors.coordinator.protocol import Ending
from dynalign.actors.coordinator.skipped_steps import SkippedSteps
from dynalign.actors.coordinator.step_monitor import StepMonitor
from dynalign.actors.coordinator.worker_group import WorkerGroup
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.ledger_spec import Batch
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.errors import (
    CheckpointWriteFailed,
    LearnerLost,
    MissingGroups,
    RunFailed,
    StepNotFinite,
    UntrainableGroups,
)
from dynalign.evaluation.suites.probe import ProbeDraw
from dynalign.learner.learner_state import Report
from dynalign.rollout.prompts import PromptSet
from dynalign.rollout.weights.version import WeightVersion, version_label
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.run_status import PoolStatus, RunStatus, SupervisionStatus

logger = logging.getLogger(__name__)


class Coordinator:
    """The actor. `train` is called once; it returns how the run ended.

    joins: learner and ledger are running, and a coordinator before this one has died. pristine: no worker can
    hold more than the initial policy, so that step 0 is not published. probe: the capability probe's items.
    """

    def __init__(
        self,
        spec: RunSpec,
        prompts: PromptSet,
        ledger: LedgerCalls,
        ranks: list[LearnerRankActor],
        joins: bool,
        pristine: bool,
        probe: ProbeDraw | None = None,
    ) -> None:
        self.spec = spec
        self.run = spec.run
        self.folder = Path(spec.run_folder)
        self._joins = joins
        self._pristine = pristine
        self._ledger = ledger
        self._learner = LearnerGroup(ranks, spec.run.deadlines)
        self._workers = WorkerGroup()
        self._steps = StepMonitor(
            spec,
            prompts,
            ledger,
            self._workers,
            str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
            probe,
        )
        self._controls = LoopControls()
        self._now = LoopProgress("starting", "starting the learner")
        self._batches = BatchSource(self.run, ledger, self._controls, self._now)
        self._started_s = time.time()
        self.step = spec.step
        self._version: WeightVersion | None = None
        self._ages: list[int] = []
        self._checkpointed = spec.step
        self._checkpoint_failures = 0
        self._skipped = SkippedSteps()
        self._uncommitted = False
        self._metrics_address: str | None = None
        self._status: RunStatus | None = None
        logs.configure(self.run, "coordinator", lambda: version_label(spec.lineage, self.step))

    async def train(self) -> Ending:
        """The loop. Kill the ledger or this actor between any two lines: every group is trained once."""
        await self._begin()
        while not self._done():
            step = self.step + 1
            started_s = time.monotonic()
            try:
                # Reserves P groups; the same step number returns the same batch.
                batch = await self._take(step)
                # One GRPO step on Arrow records; asked twice, the learner answers once.
                learned, group_ids = await self._learn(step, batch)
            except MissingGroups as missing:
                await self._ledger.requeue_missing(step, missing.group_ids)
                continue
            except UntrainableGroups as untrainable:
                await self._ledger.withhold_unreadable(step, untrainable.group_ids)
                continue
            except StepNotFinite as skipped:
                await self._skip(step, batch, skipped)
                continue
            except StopRequested:
                break
            # The weights can be fetched from here on; this waits for no worker.
            version, publish_s = await self._publish(step)
            # On one shared device, the engines need it back before there is a version to load.
            await self._wake()
            # Only here do the groups become `trained`.
            await self._ledger.commit(step, version, group_ids)
            self.step = step
            self._version = version
            if self._checkpoint_due():
                await self._checkpoint()
            learned |= {
                "weight_sync_s": publish_s,
                "weight_bytes": version.size_bytes,
                "step_s": time.monotonic() - started_s,
            }
            await self._monitor(learned)
        return await self._end()

    # -- the loop's lines ------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        exporter = self._steps.exporter
        address = await asyncio.to_thread(exporter.start)
        self._metrics_address = None if address is None else f"{address[0]}:{address[1]}"
        if self._joins:
            self.step = (await self._ledger.status()).committed_step
            # Committed first, also where the run stops: a checkpoint would hold the learner's later state.
            self._uncommitted = await self._learner.trained_step() > self.step
        else:
            await self._learner.start()
            if self.step:
                self._now.phase = f"loading the checkpoint of step {self.step}"
                whole = layout.step_folder(self.folder / layout.CHECKPOINTS, self.step)
                await self._learner.load(whole, self.step)
        initial = WeightVersion(self.spec.lineage, 0, b"", (), 0)  # what every engine loads at its start
        published = None if self._pristine and not self.step else await self._learner.publish(self.step)
        if self.step and published is None:
            lost = f"the learner no longer holds version {self.step}, which the ledger has committed"
            raise LearnerLost("died", lost)
        self._version = initial if published is None else published[0]
        await self._ledger.offer(self._version)
        self._now.state = "running"
        self._now.phase = ""
        await self._steps.begin()
        if not self._steps.has_row(self.step):
            await self._monitor({})

    async def _take(self, step: int) -> Batch:
        if self._uncommitted:  # the learner has its groups, and answers once
            return Batch(step, self.step, (), ())
        return await self._batches.take(step)

    async def _learn(self, step: int, batch: Batch) -> tuple[Report, tuple[int, ...]]:
        self._now.phase = f"learning step {step}"
        present_fraction = len(batch.groups) / self.run.rollout.prompts_per_step
        await self._sleep()
        try:
            report, group_ids = await self._learner.step(step, batch.groups, batch.handles, present_fraction)
        except UntrainableGroups as untrainable:
            logger.error("withheld, since the learner cannot train on them: %s", untrainable)
            raise
        self._skipped.trained()
        self._uncommitted = False
        self._ages = [
            batch.version - group.version_min for group in batch.groups if group.group_id in group_ids
        ]
        return report | {"learner_wait_s": self._batches.wait_s}, group_ids

    async def _skip(self, step: int, batch: Batch, skipped: StepNotFinite) -> None:
        """The weights are as they were, and the batch is generated again. Raises RunFailed after a few."""
        self._steps.exporter.step_skipped()
        logger.error("%s", skipped)
        self._now.notice = self._skipped.skipped(skipped)
        await self._wake()
        await self._ledger.requeue_missing(step, batch.group_ids)

    async def _publish(self, step: int) -> tuple[WeightVersion, float]:
        published = await self._learner.publish(step)
        if published is None:
            lost = f"the learner does not hold the weights of step {step}, which it has just trained"
            raise RunFailed(lost)
        return published

    async def _monitor(self, learned: Mapping[str, Any]) -> None:
        monitor = self._steps
        measured = await monitor.measure(self.step)
        heldout: list[HeldoutItem] = []
        if monitor.evaluation_due(self.step):
            self._now.phase = f"evaluating the policy of step {self.step}"
            with suppress(StopRequested):  # the step's row then has no held-out figures
                heldout = await self._controls.or_stop(monitor.evaluate(self.step))
        await monitor.write_row(self.step, learned, self._ages if learned else (), measured, heldout)
        if not self._done() and (alarm := monitor.alarms.asked()) is not None:
            self._controls.obey(alarm, self._now)

    async def _checkpoint(self) -> bool:
        """Whether it was written. If not, it is tried again: after the next step, or at once at the end."""
        self._now.phase = f"writing the checkpoint of step {self.step}"
        try:
            await write_checkpoint(self.spec, self.step, self._learner, await self._ledger.snapshot())
        except CheckpointWriteFailed as failed:
            self._checkpoint_failures += 1
            self._steps.exporter.checkpoint_failed()
            if self._checkpoint_failures > self.run.checkpoint.failures:
                raise
            self._now.notice = f"{failed}; it is tried again"
            return False
        self._checkpointed = self.step
        self._checkpoint_failures = 0
        self._now.notice = ""
        self._steps.exporter.checkpointed(self.step)
        await clear_spool(self.folder, self.spec.lineage, self.step, self._ledger)
        return True

    async def _end(self) -> Ending:
        finished = not self._controls.stopping
        self._now.state = "stopping"
        self._now.phase = "ending the ledger and the workers"
        await (self._ledger.end("run_ended") if finished else self._ledger.pause())
        self._workers.stop()
        due = self.step > self._checkpointed or (finished and self.step)
        while due and not await self._checkpoint():
            pass
        ended: Literal["finished", "interrupted"] = "finished" if finished else "interrupted"
        self._now.state = ended
        self._now.phase = ""
        self._steps.close()
        await asyncio.to_thread(self._steps.exporter.close, ended)
        newest = layout.step_folder(self.folder / layout.CHECKPOINTS, self._checkpointed)
        checkpoint = str(newest) if self._checkpointed else None
        alarms = (self._controls.stopped_by, self._steps.alarms.firing)
        return Ending(ended, asdict(await self._ledger.status()), checkpoint, *alarms)

    # -- what the lines ask ----------------------------------------------------------------------------------

    def _done(self) -> bool:
        over = self._controls.stopping or self.step >= self.run.steps or self._steps.converged()
        return over and not self._uncommitted

    def _checkpoint_due(self) -> bool:
        since = self.step - self._checkpointed
        return since >= self.run.checkpoint.every_steps and self.step < self.run.steps

    async def _sleep(self) -> None:
        if self.run.placement.mode == "shared":
            await self._workers.sleep(self.run.deadlines.step_s)

    async def _wake(self) -> None:
        if self.run.placement.mode == "shared":
            await self._workers.wake()

    # -- controls --------------------------------------------------------------------------------------------

    async def add_worker(self, name: str, worker: RolloutWorkerHandle) -> None:
        """A worker that is ready to serve."""
        self._workers.add(name, worker)

    async def remove_worker(self, name: str) -> None:
        """A worker that drains, has left, or has died."""
        self._workers.remove(name)

    async def ledger_replaced(self) -> None:
        """Re-announces the last version to a new ledger. If its log is one step behind, the pending commit
        announces it."""
        if self._version is not None:
            await self._ledger.offer(self._version)

    async def control(self, what: str, workers: int = 0) -> None:
        """`pause`: pause after the current step, until `resume`. `stop`: end after the current step, with a
        checkpoint. `scale`: use that many workers. Raises ValueError for anything else."""
        if what == "pause":
            self._controls.pause()
        elif what == "resume":
            self._controls.resume()
        elif what == "stop":
            self._controls.stop()
            await self._ledger.pause()
        elif what == "scale":
            self._steps.scale(workers)
        else:
            raise ValueError(f"there is no control {what!r}")

    async def look(self, supervision: SupervisionStatus, ledger: Mapping[str, Any]) -> RunStatus:
        """What `dynalign status` and the progress view show. ledger: its status."""
        wall = budget_reached(self.run, supervision.endpoints)
        if wall is not None and not self._controls.stopping:
            logger.warning("%s", wall)
            self._controls.stop_for(wall)
            await self._ledger.pause()
        paused = self._now.state == "running" and self._controls.paused
        decision = self._steps.decision
        status = RunStatus(
            run=self.run.name,
            state="paused" if paused else self._now.state,
            step=self.step,
            steps=self.run.steps,
            lineage=self.spec.lineage,
            policy_version=self.step,
            metrics=self._steps.row,
            ledger=ledger,
            started_s=self._started_s,
            waiting_for=ledger["waiting_reason"],
            phase=self._now.phase,
            notice=self._now.notice,
            metrics_address=self._metrics_address,
            alarms=self._steps.alarms.firing,
            pool=PoolStatus(self._steps.decisions, decision.wanted, decision.reason, self._steps.pool_reason),
            supervision=supervision,
        )
        self._status = status
        self._steps.look(status)
        return status

    async def status(self) -> RunStatus | None:
        """The last one, for shells that reach the cluster and not the run folder; None before the first."""
        return self._status
