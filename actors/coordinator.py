"""The coordinator: the loop, its controls and its status. It touches no samples.

    train()        take ─► step ─► publish ─► commit ─► monitor ─► checkpoint when due, one step after the other
                   waits for: a whole batch in the ledger, then the learner      unblocked by: workers' reports; the ranks
    controls       set a flag that train() reads between two lines; `stop` also ends a wait for a batch

Overlap is elsewhere: workers generate the next groups while the learner steps, as far as the ledger admits them.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from actors.checkpoints import write_checkpoint
from actors.heldout import converged, evaluate
from actors.learner_group import LearnerGroup
from actors.metrics import HeldoutItem, MetricsLog, Row, read_heldout
from actors.run_place import RunPlace
from actors.step_row import WorkerTotals, step_row
from configs.errors import DeadlineExceeded, MissingGroups, NoSignal, RunFailed
from learner.checkpoint import step_folder
from rollout.prompts import PromptSet
from rollout.weight_version import WeightVersion

T = TypeVar("T")

_STATS_DEADLINE_S = 60.0  # an engine that loads weights or prefills answers between two of its steps


@dataclass(frozen=True)
class Ending:
    """state: "finished" or "interrupted". ledger: its last status. checkpoint: the newest whole one."""

    state: str
    ledger: dict[str, Any]
    checkpoint: str | None


class StopRequested(Exception):
    """Ends a wait for a batch; never leaves the coordinator."""


class Coordinator:
    """The actor. `train` is called once; it returns how the run ended."""

    def __init__(self, place: RunPlace, prompts: PromptSet, ledger: Any, ranks: list[Any]) -> None:
        self.place, self.run, self.folder = place, place.run, Path(place.run_folder)
        self._prompts, self._ledger = prompts, ledger
        self._learner = LearnerGroup(ranks, place.run.deadlines)
        self._workers: dict[str, Any] = {}
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._state, self._phase = "starting", "starting the learner"
        self._started_s = time.time()
        self.step, self._checkpointed = place.step, place.step
        self._row: Row | None = None
        self._heldout = read_heldout(self.folder)
        self._totals = WorkerTotals({})
        self.log = MetricsLog(self.folder, self.run.tensorboard, place.lineage)

    async def train(self) -> Ending:
        """The loop. Kill the ledger or this actor between any two of its lines: every group is trained once."""
        await self._begin()
        while not self._done():
            step = self.step + 1
            started_s = time.monotonic()
            try:
                batch = await self._take(step)  # reserves P groups; the same step number returns the same batch
                learned = await self._learn(step, batch)  # one GRPO step; all it sees is Arrow; asked twice, answers once
            except MissingGroups as missing:
                await self._ledger.requeue_missing.remote(step, missing.group_ids)
                continue
            except StopRequested:
                break
            version, publish_s = await self._learner.publish(step)  # weights can be fetched; waits for no worker
            await self._wake()  # one device shared: the engine has it back before the version is there to load
            await self._ledger.commit.remote(step, version, batch.group_ids)  # only here do the groups become `trained`
            self.step = step
            if self._checkpoint_due():
                await self._checkpoint()
            learned |= {"weight_sync_s": publish_s, "weight_bytes": version.size_bytes, "step_s": time.monotonic() - started_s}
            await self._monitor(learned)
        return await self._end()

    # -- the loop's lines ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._learner.start()
        if self.step:
            self._phase = f"loading the checkpoint of step {self.step}"
            await self._learner.load(step_folder(self.folder / "checkpoints", self.step))
            version, _ = await self._learner.publish(self.step)
        else:
            version = WeightVersion(self.place.lineage, 0, b"", (), 0)  # what every engine loads at its start
        await self._ledger.publish_initial.remote(version)
        self._state, self._phase = "running", ""
        self._totals, self._ledger_status = await self._worker_totals(), await self._ledger.status.remote()
        if not self.step:
            await self._monitor({})

    async def _take(self, step: int) -> Any:
        self._phase = f"waiting for the batch of step {step}"
        deadline_s = self.run.deadlines.batch_s
        await self._or_stop(self._running.wait())
        started_s = time.monotonic()
        try:
            batch = await self._or_stop(self._ledger.take.remote(step, deadline_s))
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
        batch = await self._ledger.take_present.remote(step) if action == "warn" else None
        if batch is None:  # nothing at all is there, or a resume after a pause: draw another refill
            await self._ledger.refill.remote()
            return await self._take(step)
        return batch

    async def _learn(self, step: int, batch: Any) -> dict[str, Any]:
        self._phase = f"learning step {step}"
        present_fraction = len(batch.groups) / self.run.rollout.prompts_per_step
        await self._sleep()
        report = await self._learner.step(step, batch.groups, batch.handles, present_fraction)
        return report | {"learner_wait_s": self._wait_s}

    async def _monitor(self, learned: Mapping[str, Any]) -> None:
        status = await self._ledger.status.remote()
        totals = await self._worker_totals()
        heldout: list[HeldoutItem] = []
        if self._heldout_due():
            self._phase = f"evaluating step {self.step} on held-out prompts"
            heldout = await evaluate(self.run, self._prompts, self._ledger, self.step, self.place.lineage)
            self._heldout += heldout
            self.log.write_heldout(heldout)
        row = step_row(self.step, self.place.lineage, learned, self._ledger_status, status, self._totals, totals, heldout)
        self._ledger_status = status
        self._totals = await self._worker_totals()  # the evaluation's own work belongs to no step
        self._row = self.log.write(row)

    async def _checkpoint(self) -> None:
        self._phase = f"writing the checkpoint of step {self.step}"
        snapshot = await self._ledger.snapshot.remote()
        await write_checkpoint(self.place, self.step, self._learner, snapshot)
        self._checkpointed = self.step
        await self._ledger.forget.remote(self.step)

    async def _end(self) -> Ending:
        finished = not self._stop.is_set()
        self._state, self._phase = "stopping", "ending the ledger and the workers"
        if finished:
            await self._ledger.end.remote("run_ended")
        for worker in self._workers.values():
            await worker.stop.remote()
        if self.step > self._checkpointed or (finished and self.step):
            await self._checkpoint()
        self._state, self._phase = "finished" if finished else "interrupted", ""
        self.log.close()
        whole = step_folder(self.folder / "checkpoints", self._checkpointed) if self._checkpointed else None
        return Ending(self._state, await self._ledger.status.remote(), None if whole is None else str(whole))

    # -- what the lines ask -------------------------------------------------------------------------------------------------

    def _done(self) -> bool:
        return self._stop.is_set() or self.step >= self.run.steps or converged(self.run.convergence, self._heldout)

    def _checkpoint_due(self) -> bool:
        return self.step % self.run.checkpoint.every_steps == 0 and self.step < self.run.steps

    def _heldout_due(self) -> bool:
        settings = self.run.heldout
        return settings.prompts > 0 and (self.step % settings.every_steps == 0 or self.step == self.run.steps)

    async def _sleep(self) -> None:
        if self.run.placement.mode == "shared":
            await asyncio.gather(*(worker.sleep.remote() for worker in self._workers.values()))

    async def _wake(self) -> None:
        if self.run.placement.mode == "shared":
            await asyncio.gather(*(worker.wake.remote() for worker in self._workers.values()))

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

    async def _worker_totals(self) -> WorkerTotals:
        names, workers = list(self._workers), list(self._workers.values())
        try:
            async with asyncio.timeout(_STATS_DEADLINE_S):
                answers = await asyncio.gather(*(worker.stats.remote() for worker in workers))
        except TimeoutError as error:
            raise DeadlineExceeded(f"the figures of workers {', '.join(names)}", _STATS_DEADLINE_S) from error
        return WorkerTotals(dict(zip(names, answers, strict=True)))

    # -- controls -----------------------------------------------------------------------------------------------------------

    async def add_worker(self, name: str, worker: Any) -> None:
        """A worker that is ready to serve."""
        self._workers[name] = worker

    async def remove_worker(self, name: str) -> None:
        """A worker that has left or died."""
        self._workers.pop(name, None)
        await self._ledger.worker_left.remote(name)

    async def control(self, what: str) -> None:
        """`pause`: no step is begun until `resume`. `stop`: the run ends after the step under way, with a checkpoint."""
        if what == "pause":
            self._running.clear()
        elif what == "resume":
            self._running.set()
        elif what == "stop":
            self._stop.set()
        else:
            raise ValueError(f"there is no control {what!r}")

    async def status(self) -> dict[str, Any]:
        """What `dynalign status` and the progress view show."""
        ledger = await self._ledger.status.remote()
        return {
            "run": self.run.name,
            "state": "paused" if self._state == "running" and not self._running.is_set() else self._state,
            "step": self.step,
            "steps": self.run.steps,
            "lineage": self.place.lineage,
            "policy_version": self.step,
            "metrics": self._row,
            "ledger": ledger,
            "workers": list((await self._worker_totals()).by_name.values()),
            "started_s": self._started_s,
            "waiting_for": ledger["waiting_reason"],
            "phase": self._phase,
        }


