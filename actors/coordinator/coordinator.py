"""The coordinator: the loop, its controls and its status. It touches no samples.

    train()        take ─► step ─► publish ─► commit ─► monitor ─► checkpoint when due, one step after the other
                   waits for: a whole batch in the ledger, then the learner      unblocked by: workers' reports; the ranks
    controls       set a flag that train() reads between two lines; `stop` also ends a wait for a batch
    look()         the supervision's question, every second: what it knows goes in, the status comes out; waits for nothing

Overlap is elsewhere: workers generate the next groups while the learner steps, as far as the ledger admits them. All that a
coordinator knows can be learned again from ledger and learner, so one that has died is replaced in its place (`joins`).
"""

import asyncio
import time
from collections.abc import Awaitable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from dynalign.actors import logs
from dynalign.actors.coordinator.checkpoints import clear_spool, write_checkpoint
from dynalign.actors.coordinator.exporter import Exporter
from dynalign.actors.coordinator.heldout import converged, evaluate
from dynalign.actors.coordinator.learner_group import LearnerGroup
from dynalign.actors.coordinator.pool_size import Decision, PoolSize
from dynalign.actors.coordinator.step_row import WorkerTotals, step_row
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.actors.run_spec import RunSpec
from dynalign.configs.errors import CheckpointWriteFailed, LearnerLost, MissingGroups, NoSignal, RunFailed
from dynalign.rollout.prompts import PromptSet
from dynalign.rollout.weights.version import WeightVersion, version_label
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.layout import step_folder
from dynalign.run_folder.metrics import MetricsLog, Row, read_heldout, read_metrics

T = TypeVar("T")

_ANSWER_S = 20.0  # an engine that loads weights or prefills answers between two of its steps; one that does not is left out of a row


@dataclass(frozen=True)
class Ending:
    """state: "finished" or "interrupted". ledger: its last status. checkpoint: the newest whole one."""

    state: str
    ledger: dict[str, Any]
    checkpoint: str | None


class StopRequested(Exception):
    """Ends a wait for a batch or an evaluation; never leaves the coordinator."""


class Coordinator:
    """The actor. `train` is called once; it returns how the run ended.

    joins: learner and ledger live and go on where a coordinator before this one has died. pristine: no worker can hold anything but the
    initial policy yet, so that a run at step 0 has nothing to publish.
    """

    def __init__(
        self,
        spec: RunSpec,
        prompts: PromptSet,
        ledger: LedgerCalls,
        ranks: list[Any],
        joins: bool,
        pristine: bool,
    ) -> None:
        self.spec, self.run, self.folder = spec, spec.run, Path(spec.run_folder)
        self._prompts, self._joins, self._pristine = prompts, joins, pristine
        self._ledger = ledger
        self._learner = LearnerGroup(ranks, spec.run.deadlines)
        self._workers: dict[str, Any] = {}
        self._mute: set[str] = set()
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._asleep = False
        self._state, self._phase = "starting", "starting the learner"
        self._started_s = time.time()
        self.step, self._checkpointed, self._checkpoint_failures, self._notice = spec.step, spec.step, 0, ""
        self._row: Row | None = None
        self._heldout = read_heldout(self.folder)
        self._totals = WorkerTotals({})
        self._version: WeightVersion | None = None
        self._pool = PoolSize(spec.run.rollout.workers.min, spec.run.rollout.workers.max)
        self._decided = (0, Decision(0, ""))  # counted, so that the supervision knows which one is new
        self._pool_reason, self._status = "", dict[str, Any]()
        self._ages: list[int] = []
        self._exporter = Exporter(self.run, self.folder, spec.lineage, ray.util.get_node_ip_address())
        self._metrics_address: str | None = None
        self._supervised: Mapping[str, Any] = {}
        logs.configure(self.run, "coordinator", lambda: version_label(spec.lineage, self.step))
        self.log = MetricsLog(self.folder, self.run.tensorboard, spec.lineage)

    async def train(self) -> Ending:
        """The loop. Kill the ledger or this actor between any two of its lines: every group is trained once."""
        await self._begin()
        while not self._done():
            step = self.step + 1
            started_s = time.monotonic()
            try:
                batch = await self._take(
                    step
                )  # reserves P groups; the same step number returns the same batch
                learned, group_ids = await self._learn(
                    step, batch
                )  # one GRPO step on Arrow records; asked twice, answers once
            except MissingGroups as missing:
                await self._ledger.requeue_missing(step, missing.group_ids)
                continue
            except StopRequested:
                break
            version, publish_s = await self._publish(step)  # weights can be fetched; waits for no worker
            await (
                self._wake()
            )  # one device shared: the engine has it back before the version is there to load
            await self._ledger.commit(step, version, group_ids)  # only here do the groups become `trained`
            self.step, self._version = step, version
            if self._checkpoint_due():
                await self._checkpoint()
            learned |= {
                "weight_sync_s": publish_s,
                "weight_bytes": version.size_bytes,
                "step_s": time.monotonic() - started_s,
            }
            await self._monitor(learned)
        return await self._end()

    # -- the loop's lines ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        address = await asyncio.to_thread(self._exporter.start)
        self._metrics_address = None if address is None else f"{address[0]}:{address[1]}"
        if self._joins:
            self.step = (await self._ledger.status())["committed_step"]
        else:
            await self._learner.start()
            if self.step:
                self._phase = f"loading the checkpoint of step {self.step}"
                await self._learner.load(step_folder(self.folder / layout.CHECKPOINTS, self.step))
        initial = WeightVersion(self.spec.lineage, 0, b"", (), 0)  # what every engine loads at its start
        published = None if self._pristine and not self.step else await self._learner.publish(self.step)
        if self.step and published is None:
            raise LearnerLost(
                "died", f"the learner no longer holds version {self.step}, which the ledger has committed"
            )
        self._version = initial if published is None else published[0]
        await self._ledger.offer(self._version)
        self._state, self._phase = "running", ""
        self._totals, self._ledger_status = await self._worker_totals(), await self._ledger.status()
        if self.step not in {
            row["step"] for row in read_metrics(self.folder)
        }:  # the first one, or one that a coordinator died over
            await self._monitor({})

    async def _take(self, step: int) -> Any:
        self._phase = f"waiting for the batch of step {step}"
        deadline_s = self.run.deadlines.batch_s
        await self._or_stop(self._running.wait())
        started_s = time.monotonic()
        try:
            batch = await self._or_stop(self._ledger.take(step, deadline_s))
        except NoSignal as no_signal:
            batch = await self._without_signal(step, no_signal)
        self._wait_s = time.monotonic() - started_s
        return batch

    async def _without_signal(self, step: int, no_signal: NoSignal) -> Any:
        action = self.run.algorithm.on_no_signal
        if action == "stop":
            raise RunFailed(f"{no_signal}; algorithm.on_no_signal=stop") from no_signal
        if action == "pause":
            self._running.clear()
            self._phase = f"paused: {no_signal}; resume it, or stop it and change the rubric or the prompts"
            await self._or_stop(self._running.wait())
        batch = (
            await self._ledger.take_present(step, self.run.deadlines.batch_s) if action == "warn" else None
        )
        if batch is None:  # nothing at all is there, or a resume after a pause: draw another refill
            await self._ledger.refill()
            return await self._take(step)
        return batch

    async def _learn(self, step: int, batch: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        self._phase = f"learning step {step}"
        present_fraction = len(batch.groups) / self.run.rollout.prompts_per_step
        await self._sleep()
        report, group_ids = await self._learner.step(step, batch.groups, batch.handles, present_fraction)
        self._ages = [
            batch.version - group.version_min for group in batch.groups if group.group_id in group_ids
        ]
        return report | {"learner_wait_s": self._wait_s}, group_ids

    async def _publish(self, step: int) -> tuple[WeightVersion, float]:
        published = await self._learner.publish(step)
        if published is None:
            raise RunFailed(
                f"the learner does not hold the weights of step {step}, which it has just trained"
            )
        return published

    async def _monitor(self, learned: Mapping[str, Any]) -> None:
        status = await self._ledger.status()
        totals = await self._worker_totals()
        heldout: list[HeldoutItem] = []
        if self._heldout_due():
            self._phase = f"evaluating step {self.step} on held-out prompts"
            with suppress(StopRequested):  # the step's row then has no held-out figures
                heldout = await self._or_stop(
                    evaluate(self.run, self._prompts, self._ledger, self.step, self.spec.lineage)
                )
            self._heldout += heldout
            self.log.write_heldout(heldout)
        row = step_row(
            self.step, self.spec.lineage, learned, self._ledger_status, status, self._totals, totals, heldout
        )
        self._ledger_status, self._totals = (
            status,
            await self._worker_totals() if heldout else totals,
        )  # an evaluation is no step's work
        self._row = self.log.write(row | {"worker_restarts": self._restarts()})
        self._exporter.trained(self._ages if learned else ())
        self._exporter.row(self._row)
        self._size_the_pool()

    def _size_the_pool(self) -> None:
        """Between two sizes nothing is measured: workers that load or drain say nothing about the size they lead to."""
        row, workers = self._row or {}, self._supervised.get("workers", [])
        settled = len(workers) == len(self._workers) and all(
            worker["state"] == "serving" for worker in workers
        )
        if settled and workers and row.get("step_s") and row.get("rollout_idle_fraction") is not None:
            decision = self._pool.decide(
                len(workers), row["learner_wait_s"] / row["step_s"], row["rollout_idle_fraction"]
            )
            if decision.wanted != len(workers):
                self._decided = self._decided[0] + 1, decision
            self._pool_reason = decision.reason

    async def _checkpoint(self) -> None:
        """One that cannot be written is tried again after the next step: the one before is whole, and a disk can be freed."""
        self._phase = f"writing the checkpoint of step {self.step}"
        try:
            snapshot = await self._ledger.snapshot()
            await write_checkpoint(self.spec, self.step, self._learner, snapshot)
        except CheckpointWriteFailed as failed:
            self._checkpoint_failures += 1
            self._exporter.checkpoint_failed()
            if self._state == "stopping" or self._checkpoint_failures > self.run.checkpoint.failures:
                raise
            self._notice = f"{failed}; trying again after the next step"
            return
        self._checkpointed, self._checkpoint_failures, self._notice = self.step, 0, ""
        self._exporter.checkpointed(self.step)
        await clear_spool(self.folder / layout.SPOOL, self.step, self._ledger)

    async def _end(self) -> Ending:
        finished = not self._stop.is_set()
        self._state, self._phase = "stopping", "ending the ledger and the workers"
        await (self._ledger.end("run_ended") if finished else self._ledger.pause())
        for worker in self._workers.values():
            worker.stop.remote()  # nobody waits for it: a worker that has just died ends no run
        if self.step > self._checkpointed or (finished and self.step):
            await self._checkpoint()
        self._state, self._phase = "finished" if finished else "interrupted", ""
        self.log.close()
        await asyncio.to_thread(self._exporter.close, self._state)
        whole = (
            step_folder(self.folder / layout.CHECKPOINTS, self._checkpointed) if self._checkpointed else None
        )
        return Ending(self._state, await self._ledger.status(), None if whole is None else str(whole))

    # -- what the lines ask -------------------------------------------------------------------------------------------------

    def _done(self) -> bool:
        return (
            self._stop.is_set()
            or self.step >= self.run.steps
            or converged(self.run.convergence, self._heldout)
        )

    def _checkpoint_due(self) -> bool:
        return (
            self.step - self._checkpointed >= self.run.checkpoint.every_steps and self.step < self.run.steps
        )

    def _heldout_due(self) -> bool:
        settings = self.run.heldout
        return settings.prompts > 0 and (self.step % settings.every_steps == 0 or self.step == self.run.steps)

    async def _sleep(self) -> None:
        if self.run.placement.mode == "shared":
            self._asleep = True
            await self._of_all("sleep")

    async def _wake(self) -> None:
        if self.run.placement.mode == "shared":
            self._asleep = False
            await self._of_all("wake")

    async def _or_stop(self, wanted: Awaitable[T]) -> T:
        """The wanted value, or StopRequested as soon as a stop is asked for."""
        task, stop = asyncio.ensure_future(wanted), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise StopRequested
            return await task
        finally:
            stop.cancel()
            task.cancel()

    async def _of_all(self, method: str, names: Collection[str] | None = None) -> dict[str, Any]:
        """The answer of every worker that gives one in time; one that has died or hangs is the supervision's business."""
        asked = {name: worker for name, worker in self._workers.items() if names is None or name in names}
        calls = {
            name: asyncio.ensure_future(worker.__getattr__(method).remote()) for name, worker in asked.items()
        }
        if calls:
            await asyncio.wait(calls.values(), timeout=_ANSWER_S)
        answers = {}
        for name, call in calls.items():
            if not call.done():
                call.cancel()
            elif not isinstance(call.exception(), ray.exceptions.RayActorError):
                answers[name] = call.result()
        return answers

    async def _worker_totals(self) -> WorkerTotals:
        """A worker that gave no figures once is not asked again: the step must not wait for one that hangs."""
        totals = await self._of_all("stats", self._workers.keys() - self._mute)
        self._mute = self._workers.keys() - totals.keys()
        return WorkerTotals(totals)

    # -- controls -----------------------------------------------------------------------------------------------------------

    async def add_worker(self, name: str, worker: Any) -> None:
        """A worker that is ready to serve."""
        if self._asleep:
            await worker.sleep.remote()
        self._workers[name] = worker

    async def remove_worker(self, name: str) -> None:
        """A worker that drains, has left, or has died."""
        self._workers.pop(name, None)

    async def ledger_replaced(self) -> None:
        """The version that the ledger before it had made known; one that is behind gets the newest by the commit under way."""
        if self._version is not None:
            await self._ledger.offer(self._version)

    async def control(self, what: str, workers: int = 0) -> None:
        """`pause`: no step is begun until `resume`. `stop`: the run ends after the step under way, with a checkpoint. `scale`: the run
        wants that many workers."""
        if what == "pause":
            self._running.clear()
        elif what == "resume":
            self._running.set()
        elif what == "stop":
            self._stop.set()
            await self._ledger.pause()
        elif what == "scale":
            self._decided = self._decided[0] + 1, Decision(workers, "dynalign scale")
        else:
            raise ValueError(f"there is no control {what!r}")

    async def look(self, supervised: Mapping[str, Any], ledger: Mapping[str, Any]) -> dict[str, Any]:
        """What `dynalign status` and the progress view show. supervised: `Supervisor.report`; ledger: its status."""
        self._supervised = supervised
        self._status = {
            "run": self.run.name,
            "state": "paused" if self._state == "running" and not self._running.is_set() else self._state,
            "step": self.step,
            "steps": self.run.steps,
            "lineage": self.spec.lineage,
            "policy_version": self.step,
            "metrics": self._row,
            "ledger": ledger,
            "started_s": self._started_s,
            "waiting_for": ledger["waiting_reason"],
            "phase": self._phase,
            "notice": self._notice,
            "metrics_address": self._metrics_address,
            "pool": {"decision": self._decided[0], "now": self._pool_reason} | asdict(self._decided[1]),
            **supervised,
        }
        self._exporter.look(self._status["state"], ledger, supervised)
        return self._status

    async def status(self) -> dict[str, Any]:
        """The last one, for shells that reach the cluster and not the run folder."""
        return self._status

    def _restarts(self) -> int:
        restarts = self._supervised.get("restarts", {})
        return sum(count for cause, count in restarts.items() if cause.startswith("worker/"))
