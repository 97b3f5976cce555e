"""The supervision: it runs in the driver's process, creates every actor, and replaces what dies or hangs.

  what dies or hangs        how it is noticed                    what follows
  a rollout worker          `serve` ends with an error           its leases go back to the queue; a new worker
    or its engine           the engine's error ends the worker   in the same seat loads the newest version,
    or it hangs             no answer for deadlines.silence_s;   leases again. A hung one is killed first,
                            a group takes longer than group_s    with its children
    or an update fails      weights.deadline_s                   as above; its engine is never used again
  a prompt that kills       the ledger knows what a worker       the ledger leases each such prompt alone,
    its worker              held when it died                    withholds it after poison_attempts deaths
  the ledger                `start` exceeds start_s; `status`    a new one restores itself from checkpoint,
                            fails or is silent for silence_s     log and spool; callers retry meanwhile
  the coordinator           `train` ends with an error; `look`   a new one joins the running learner and
                            is silent for silence_s              ledger
  an engine of judge.pool   as a rollout worker, answer_s for    a new one of the same name; its questions are
                            group_s                              asked again elsewhere, or of its successor
  the gateway               as the ledger                        a new one reads the journal; callers retry
  a learner rank            a call to it fails, or exceeds its   ranks, coordinator and ledger start again:
                            deadline                             newest whole checkpoint, new lineage; the
                                                                 workers stay, and load that version
  a node                    as everything on it                  as everything on it
  the driver or its node    Ray ends all actors with it          started again, the run resumes from the
                                                                 newest whole checkpoint

Whether an error means that an actor is gone is decided in `deaths.py`. Each kind has a budget of restarts
(supervision.restarts within window_s). Beyond it, and for an error that would repeat (a full disk, a model
that does not load), the run ends with the cause and a whole checkpoint. No call here waits: one `look` takes
in what is known.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from dynalign.actors.coordinator.protocol import CoordinatorHandle, Ending
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.remote import Call, Calls
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.asked_actors import AskedActors
from dynalign.actors.supervision.controls import Controls
from dynalign.actors.supervision.deaths import Death, death, root_cause
from dynalign.actors.supervision.departures import Departures, Poisoned
from dynalign.actors.supervision.losses import Losses
from dynalign.actors.supervision.spawner import Rollback, Spawner
from dynalign.actors.supervision.watched import AnyWatched, Watched
from dynalign.actors.supervision.worker_pool import WorkerPool
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.errors import LearnerLost, RunFailed
from dynalign.run_folder.events import EventLog
from dynalign.run_folder.run_status import MirrorStatus, RunStatus, SupervisionStatus


class Supervisor:
    """One driver's supervision of one run: `start` by the first `look`, `look` until `ending` is there,
    `end` always.

    spec: the run, in the lineage and at the step where this driver begins. newest_step: the step of the
    newest whole checkpoint. poisoned: takes what the ledger withholds as poison. clock: seconds, monotonic.

    `cause` is why the run is being ended, None while it is not. `status` and `ledger_status` are the last
    answers of coordinator and ledger. `mirror` is what the driver's `Mirror` reports, None for a run
    without one.
    """

    def __init__(
        self,
        spec: RunSpec,
        spawn: Spawner,
        rollback: Rollback,
        newest_step: Callable[[], int],
        poisoned: Callable[[Sequence[Poisoned]], None],
        calls: Calls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = spec.run
        self._spec = spec
        self._spawn = spawn
        self._rollback = rollback
        self._newest_step = newest_step
        self._calls = calls
        self._clock = clock
        self._events = EventLog(Path(spec.run_folder), lambda: self._spec.lineage)
        self._losses = Losses(self.run.supervision, self._events, clock)
        self._ledger: Watched[LedgerHandle, None, LedgerStatus] = Watched("ledger", calls, clock)
        self._learner: Watched[LearnerRankActor, None, None] = Watched("learner", calls, clock)
        self._coordinator: Watched[CoordinatorHandle, Ending, RunStatus] = Watched(
            "coordinator", calls, clock
        )
        self._pool: WorkerPool[RolloutWorkerHandle] = WorkerPool(
            self.run.rollout.workers.min,
            self.run.deadlines,
            self.run.supervision,
            lambda *names: spawn.worker(self._spec, *names),
            self,
            self._events,
            calls,
            clock,
        )
        self._asked = AskedActors(spec, spawn, self.fail, self._events, calls, clock)
        self._departures = Departures(calls, poisoned)
        self._controls = Controls(clock)
        self._why_wanted = "rollout.workers"
        self._decisions = 0
        self._pristine = True
        self._ready = False
        self.status: RunStatus | None = None
        self.ledger_status: dict[str, Any] | None = None
        self.mirror: MirrorStatus | None = None
        self.ending: Ending | None = None
        self.cause: str | None = None

    # -- what the driver calls -------------------------------------------------------------------------------

    def look(self, timeout_s: float) -> None:
        """Waits for something to happen, `timeout_s` at most, and deals with all that has.

        Raises RunFailed, or the error that ends the run, when it cannot even end with a checkpoint.
        """
        core = [call for call in (self._coordinator.call, self._ledger.call) if call is not None]
        self._calls.wait([*core, *self._pool.calls, *self._asked.calls], timeout_s)
        self._create_core()
        self._look_at_ledger()
        self._look_at_coordinator()
        if self.ending is None:
            self._pool.look()
            self._asked.look()
            self._departures.settle()
            self._controls.keep_deadline(self.run.deadlines.stop_s, self.cause)

    def ask(self, what: str) -> None:
        """`pause`, `resume` or `stop`, for the coordinator and its successors."""
        self._controls.ask(what)
        if self._coordinator.actor is not None:
            self._coordinator.actor.control.remote(what)

    def hurry(self) -> None:
        """`stop`, within `deadlines.stop_s`."""
        self.ask("stop")
        self._controls.hurry()

    def scale(self, wanted: int, why: str) -> None:
        """The number of workers from now on."""
        if wanted != self._pool.wanted:
            self._events.write("pool", "rollout", "scaled", "", f"{self._pool.wanted} -> {wanted}: {why}")
        self._pool.wanted = wanted
        self._why_wanted = why

    def report(self) -> SupervisionStatus:
        """What the supervision knows, for the coordinator, status and metrics."""
        restarts = self._losses.restarts + self._pool.restarts + self._asked.restarts
        workers = self.run.rollout.workers
        return SupervisionStatus(
            workers=self._pool.stats(),
            workers_wanted=self._pool.wanted,
            workers_range=None if workers.min == workers.max else (workers.min, workers.max),
            why_wanted=self._why_wanted,
            settling=self._pool.settling,
            placing=self._pool.placing(),
            gpus=self._gpus(),
            restarts=dict(restarts),
            sync_failures=restarts["worker/weights"],
            mirror=self.mirror,
            engines=self._asked.engines(),
            endpoints=self._asked.endpoints,
        )

    def _gpus(self) -> float:
        """GPUs that learner and serving engines hold; a shared one counts once."""
        run = self.run
        if run.placement.device == "cpu":
            return 0.0
        workers = 0 if run.placement.mode == "shared" else len(self._pool.serving())
        return float(run.learner.ranks + workers * run.rollout.tensor_parallel + self._asked.gpus())

    def account(self) -> dict[str, Any] | None:
        """The ledger's counts at the end: its own where it still answers, else the last ones; None without
        any."""
        if self.ending is not None:
            return self.ending.ledger
        if self._ledger.actor is not None and self._ledger.call is None:
            answer = self._ledger.ask_once(self._ledger.actor.status.remote)
            self.ledger_status = self.ledger_status if answer is None else asdict(answer)
        return self.ledger_status

    def end(self) -> None:
        """Ends all actors with their children."""
        self._pool.clear()
        self._asked.clear()
        self._end_core()

    def _end_core(self) -> None:
        for watched in (self._coordinator, self._learner, self._ledger):
            watched.end()
        self._departures.forget()

    # -- ledger, learner, coordinator ------------------------------------------------------------------------

    def _create_core(self) -> None:
        """Creates what is not there and may be created now."""
        if self._learner.is_due():
            self._learner.hold(*self._spawn.ranks(self._spec))
        if self._ledger.is_due():
            ledger = self._spawn.ledger(self._at_newest_step())
            self._ledger.hold(ledger, call=ledger.start.remote())
        if self._learner.actors and self._coordinator.is_due():
            coordinator = self._spawn.coordinator(
                self._at_newest_step(), self._learner.actors, self._ready, self._pristine
            )
            self._coordinator.hold(coordinator, call=coordinator.train.remote())
            self._decisions = 0
            for name, worker in self._pool.serving():
                coordinator.add_worker.remote(name, worker)
            for what in self._controls.lasting():
                coordinator.control.remote(what)

    def _at_newest_step(self) -> RunSpec:
        """Where a replacement begins. Before the learner is ready, that is where this lineage began."""
        return replace(self._spec, step=self._newest_step()) if self._ready else self._spec

    def _look_at_ledger(self) -> None:
        if self._ledger.actor is None:
            return
        try:
            if self._ledger_serves(self._ledger.actor):
                answered = self._ledger.watch(self._ledger.actor.status.remote).look()
                self.ledger_status = self.ledger_status if answered is None else asdict(answered)
                if (hung := self._ledger.hung(self.run.deadlines.silence_s)) is not None:
                    self._ledger_lost(hung)
        except RayError as error:
            if (gone := death(error)) is None:
                raise
            self._ledger_lost(gone)

    def _ledger_serves(self, ledger: LedgerHandle) -> bool:
        """Whether the ledger has restored itself; it has `deadlines.start_s` for that."""
        if self._ledger.call is None:
            return True
        if not self._calls.ended(self._ledger.call):
            start_s = self.run.deadlines.start_s
            if self._clock() - self._ledger.since_s > start_s:
                self._ledger_lost(Death("hung", f"start took longer than deadlines.start_s={start_s:g}"))
            return False
        self._calls.answer(self._ledger.call)
        self._ledger.call = None
        if self._ready and self._coordinator.actor is not None:
            self._coordinator.actor.ledger_replaced.remote()
        self._losses.recovered(self._ledger)
        return True

    def _look_at_coordinator(self) -> None:
        if self._coordinator.actor is None or self._coordinator.call is None:
            return
        try:
            if self._calls.ended(self._coordinator.call):
                self.ending = self._calls.answer(self._coordinator.call)
            elif self.ledger_status is not None:
                self._ask_coordinator(self._coordinator.actor)
        except (RayError, LearnerLost) as error:
            cause = root_cause(error)
            if isinstance(cause, LearnerLost):
                self._learner_lost(Death(cause.how, str(cause)))
            elif (gone := death(error) or death(cause)) is not None:
                self._coordinator_lost(gone)
            else:
                raise

    def _ask_coordinator(self, coordinator: CoordinatorHandle) -> None:
        def look() -> Call[RunStatus]:
            return coordinator.look.remote(self.report(), self.ledger_status or {})

        status = self._coordinator.watch(look).look()
        if (hung := self._coordinator.hung(self.run.deadlines.silence_s)) is not None:
            self._coordinator_lost(hung)
        elif status is not None:
            self._take_status(status)

    def _take_status(self, status: RunStatus) -> None:
        self.status = status
        if status.state not in ("starting", "stopping") and status.lineage == self._spec.lineage:
            self._ready = True
            self._losses.recovered(self._coordinator)
            self._losses.recovered(self._learner)
        if status.pool.decision > self._decisions:
            self._decisions = status.pool.decision
            self.scale(status.pool.wanted, status.pool.reason)

    # -- deaths, budgets, deadlines --------------------------------------------------------------------------
    def _ledger_lost(self, why: Death) -> None:
        self._ledger.end()
        self._departures.forget()
        self._lost(self._ledger, why)

    def _coordinator_lost(self, why: Death) -> None:
        if not self._ready:  # the learner was starting, and nobody knows how far it got
            detail = f"the coordinator died before the learner was ready: {why.detail}"
            return self._learner_lost(why._replace(detail=detail))
        self._coordinator.end()
        return self._lost(self._coordinator, why)

    def _learner_lost(self, why: Death) -> None:
        self._end_core()
        self._pristine = False
        self._ready = False
        self._lost(self._learner, why)
        if self.cause is not None:  # the run was ending, and nobody is left to write its checkpoint
            raise RunFailed(self.cause)
        lineage, step = self._rollback()
        self._spec = replace(self._spec, lineage=lineage, step=step)

    def _lost(self, watched: AnyWatched, why: Death) -> None:
        """Counts a death. Raises RunFailed, or has the run end with a checkpoint, where its budget is used
        up."""
        if (ends := self._losses.lost(watched, why)) is not None:
            self.fail(ends)

    # -- what the pool calls ---------------------------------------------------------------------------------

    def joined(self, worker: str, actor: RolloutWorkerHandle) -> None:
        """A worker is ready to serve."""
        if self._coordinator.actor is not None:
            self._coordinator.actor.add_worker.remote(worker, actor)

    def leaving(self, worker: str) -> None:
        """A worker takes no more leases."""
        if self._coordinator.actor is not None:
            self._coordinator.actor.remove_worker.remote(worker)

    def left(self, worker: str, died: bool) -> None:
        """A worker is gone."""
        self.leaving(worker)
        if self._ledger.actor is not None:
            self._departures.tell(self._ledger.actor, worker, died)

    def fail(self, cause: str) -> None:
        """Ends the run after the present step, with a checkpoint.

        Raises RunFailed where no coordinator, ledger or learner is there to write one.
        """
        self.cause = self.cause or cause
        if self._coordinator.actor is None or self._ledger.actor is None or not self._ready:
            raise RunFailed(self.cause)
        self._pool.wanted = 0
        self.hurry()
