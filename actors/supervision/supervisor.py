"""The supervision: every death has a story. It runs in the driver's process, creates every actor, and replaces what dies.

    what dies or hangs          how it is noticed                      what follows
    a rollout worker            its serving call breaks off            its leases go back to the head of the queue; a new worker takes
      or its engine process     the engine's error ends the worker     the seat, loads the newest version, then leases
      or it hangs               no answer for deadlines.silence_s; a   it is killed with its children, then as above
                                group takes longer than group_s
      or an update does not     weights.deadline_s                     the engine is never resumed: killed, then as above; the others
      complete                                                         go on
    a prompt that kills         a worker's death names what it held    each suspect is leased alone; poison_attempts deaths withhold it
    the ledger                  its status call breaks off, or gives   a new one reads checkpoint, log and spool: scored groups are
                                no answer for deadlines.silence_s      scored, leased ones are issued again; callers just wait
    the coordinator             its loop's call breaks off, or gives   a new one joins: learner and ledger tell it where they are
                                no answer for deadlines.silence_s
    a learner rank              a call to it breaks off, or its        all ranks, coordinator and ledger start again from the newest
                                deadline passes                        whole checkpoint in a new lineage; workers stay, drop what they
                                                                       hold, and load the version that is published then
    a node                      as everything on it                    as everything on it
    the driver, or its node     Ray ends all actors with it            submitted again, the run resumes from the newest checkpoint

Each has a budget (supervision.restarts within window_s). Beyond it, and for an error that would only come again (a full disk, a model
that does not load), the run ends with the cause and a whole checkpoint. No call here waits: one look takes in what is known by then.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import ray

from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.liveness import Liveness
from dynalign.actors.supervision.restart_budget import RestartBudget
from dynalign.actors.supervision.worker_pool import WorkerPool, root_cause
from dynalign.configs.errors import LearnerLost, RunFailed, one_line
from dynalign.run_folder.events import EventLog, Kind
from dynalign.run_folder.mirror import MirrorReport

logger = logging.getLogger(__name__)


class Spawner(Protocol):
    """Creates actors, on whatever cluster there is."""

    def ledger(self, spec: RunSpec) -> Any: ...
    def ranks(self, spec: RunSpec) -> tuple[Any, ...]: ...
    def coordinator(self, spec: RunSpec, ranks: tuple[Any, ...], joins: bool, pristine: bool) -> Any: ...
    def worker(self, spec: RunSpec, seat: str, name: str) -> Any: ...


class Rollback(Protocol):
    """Where a learner that has died goes on: a new lineage, and the step of the newest whole checkpoint (0: none)."""

    def __call__(self) -> tuple[int, int]: ...


class Supervisor:
    """One driver's supervision of one run. `start` once, `look` again and again until `ending` is there, `end` in any case.

    spec: the run, in the lineage and at the step where this driver begins. newest_step: of the newest whole checkpoint. poisoned:
    takes what the ledger says of groups that it has withheld as poison. cause: why the run is being ended, None while it is not.
    status, ledger_status: the last ones heard. mirror: what the driver's `Mirror` reports, None for a run without one.
    """

    def __init__(
        self,
        spec: RunSpec,
        spawn: Spawner,
        rollback: Rollback,
        newest_step: Callable[[], int],
        poisoned: Callable[[Sequence[Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self._spec, self._spawn, self._clock = spec.run, spec, spawn, clock
        self._rollback, self._newest_step, self._poisoned = rollback, newest_step, poisoned
        self._events = EventLog(Path(spec.run_folder), lambda: self._spec.lineage)
        self._budget = RestartBudget(self.run.supervision.restarts, self.run.supervision.window_s)
        self._restarts: Counter[str] = Counter()
        self._died_s: dict[Kind, float] = {}
        self._after_s = dict.fromkeys(("ledger", "learner", "coordinator"), 0.0)
        self._pool = WorkerPool(
            self.run, lambda seat, worker: spawn.worker(self._spec, seat, worker), self, self._events, clock
        )
        self._why, self._decisions = "rollout.workers", 0
        self._ledger: Any = None
        self._ledger_call: Any = None
        self._ledger_pulse: Liveness | None = None
        self.ledger_status: dict[str, Any] | None = None
        self._ranks: tuple[Any, ...] = ()
        self._coordinator: Any = None
        self._training: Any = None
        self._coordinator_pulse: Liveness | None = None
        self._pristine, self._ready = True, False
        self._left_calls: list[Any] = []
        self._asked: dict[
            str, float
        ] = {}  # controls that a coordinator's successor is to be told again, and when they were asked for
        self.status: dict[str, Any] | None = None
        self.mirror: MirrorReport | None = None
        self.ending: Any = None
        self.cause: str | None = None

    # -- what the driver calls ----------------------------------------------------------------------------------------------

    def look(self, timeout_s: float) -> None:
        """Waits for something to happen, `timeout_s` at the most, and deals with all that has.

        Raises RunFailed, or the error of the run's own, when it cannot even end with a checkpoint.
        """
        calls = [call for call in (self._training, self._ledger_call, *self._pool.calls) if call is not None]
        if calls:
            ray.wait(calls, timeout=timeout_s)
        else:
            time.sleep(timeout_s)
        self._create_core()
        self._look_at_ledger()
        self._look_at_coordinator()
        if self.ending is None:
            self._pool.look()
            self._settle_leaving()
            self._keep_deadlines()

    def ask(self, what: str) -> None:
        """`pause`, `resume`, `stop`."""
        self._asked.pop({"pause": "resume", "resume": "pause"}.get(what, ""), None)
        self._asked.setdefault(what, self._clock())
        if self._coordinator is not None:
            self._coordinator.control.remote(what)

    def hurry(self) -> None:
        """A signal: stop, in `deadlines.stop_s` at the most."""
        self.ask("stop")
        self._asked.setdefault("hurry", self._clock())

    def scale(self, wanted: int, why: str) -> None:
        """The number of workers from now on."""
        if wanted != self._pool.wanted:
            self._events.write("pool", "rollout", "scaled", "", f"{self._pool.wanted} -> {wanted}: {why}")
        self._pool.wanted, self._why = wanted, why

    def report(self) -> dict[str, Any]:
        """What the coordinator, and with it status and metrics, are told."""
        restarts, workers = self._restarts + self._pool.restarts, self.run.rollout.workers
        return {
            "workers": self._pool.stats(),
            "workers_wanted": self._pool.wanted,
            "workers_range": None if workers.min == workers.max else (workers.min, workers.max),
            "why_wanted": self._why,
            "settling": self._pool.settling,
            "placing": self._pool.placing(),
            "gpus": self._gpus(),
            "restarts": dict(restarts),
            "sync_failures": restarts["worker/weights"],
            "mirror": self.mirror,
        }

    def _gpus(self) -> float:
        """GPUs that the learner and the workers that are there hold; taking turns, they hold the same ones."""
        ranks, engines = self.run.learner.ranks, len(self._pool.serving()) * self.run.rollout.tensor_parallel
        if self.run.placement.device == "cpu":
            return 0.0
        return float(ranks if self.run.placement.mode == "shared" else ranks + engines)

    def end(self) -> None:
        """Ends all actors with their children."""
        self._pool.clear()
        for actor in (self._coordinator, *self._ranks, self._ledger):
            if actor is not None:
                ray.kill(actor, no_restart=True)

    # -- ledger, learner, coordinator ---------------------------------------------------------------------------------------

    def _create_core(self) -> None:
        """What is not there (yet, or any more) and may be created now."""
        now_s = self._clock()
        if not self._ranks and now_s >= self._after_s["learner"]:
            self._ranks = self._spawn.ranks(self._spec)
        if self._ledger is None and now_s >= self._after_s["ledger"]:
            step = self._newest_step() if self._ready else self._spec.step
            self._ledger = self._spawn.ledger(replace(self._spec, step=step))
            self._ledger_call = self._ledger.start.remote()
        if self._coordinator is None and self._ranks and now_s >= self._after_s["coordinator"]:
            step = self._newest_step() if self._ready else self._spec.step
            self._coordinator = self._spawn.coordinator(
                replace(self._spec, step=step), self._ranks, self._ready, self._pristine
            )
            self._training = self._coordinator.train.remote()
            self._coordinator_pulse, self._decisions = None, 0
            for worker in self._pool.serving():
                self._coordinator.add_worker.remote(*worker)
            for what in self._asked.keys() - {"hurry"}:
                self._coordinator.control.remote(what)

    def _look_at_ledger(self) -> None:
        if self._ledger is None:
            return
        try:
            if self._ledger_call is not None:
                if not ray.wait([self._ledger_call], timeout=0)[0]:
                    return
                ray.get(self._ledger_call)
                self._ledger_call, self._ledger_pulse = (
                    None,
                    Liveness(self._ledger.status.remote, self._clock),
                )
                if self._ready and self._coordinator is not None:
                    self._coordinator.ledger_replaced.remote()
                self._recovered("ledger")
            assert self._ledger_pulse is not None
            self.ledger_status = self._ledger_pulse.look() or self.ledger_status
            if self._ledger_pulse.silent_s > self.run.deadlines.silence_s:
                self._ledger_lost("hung", f"no answer for {self.run.deadlines.silence_s:g} s")
        except ray.exceptions.RayActorError as died:
            self._ledger_lost("died", one_line(died))

    def _ledger_lost(self, cause: str, detail: str) -> None:
        ray.kill(self._ledger, no_restart=True)
        self._ledger, self._ledger_call, self._ledger_pulse, self._left_calls = None, None, None, []
        self._lost("ledger", cause, detail)

    def _look_at_coordinator(self) -> None:
        if self._coordinator is None:
            return
        try:
            if ray.wait([self._training], timeout=0)[0]:
                self.ending = ray.get(self._training)
                return
            if self.ledger_status is not None:
                self._hear_coordinator()
        except LearnerLost as error:
            lost = root_cause(error)
            self._learner_lost(lost.how, str(lost))
        except ray.exceptions.RayActorError as died:
            self._coordinator_lost("died", one_line(died))

    def _hear_coordinator(self) -> None:
        if self._coordinator_pulse is None:
            self._coordinator_pulse = Liveness(
                lambda: self._coordinator.look.remote(self.report(), self.ledger_status), self._clock
            )
        status = self._coordinator_pulse.look()
        if self._coordinator_pulse.silent_s > self.run.deadlines.silence_s:
            self._coordinator_lost("hung", f"no answer for {self.run.deadlines.silence_s:g} s")
        elif status is not None:
            self.status = status
            if status["state"] not in ("starting", "stopping") and status["lineage"] == self._spec.lineage:
                self._ready = True
                self._recovered("coordinator")
                self._recovered("learner")
            if status["pool"]["decision"] > self._decisions:
                self._decisions = status["pool"]["decision"]
                self.scale(status["pool"]["wanted"], status["pool"]["reason"])

    def _coordinator_lost(self, cause: str, detail: str) -> None:
        if not self._ready:  # it died while the learner started: nobody knows how far that was
            return self._learner_lost(cause, f"the coordinator died before the learner was ready: {detail}")
        ray.kill(self._coordinator, no_restart=True)
        self._coordinator, self._training, self._coordinator_pulse = None, None, None
        return self._lost("coordinator", cause, detail)

    def _learner_lost(self, cause: str, detail: str) -> None:
        for actor in (self._coordinator, *self._ranks, self._ledger):
            if actor is not None:
                ray.kill(actor, no_restart=True)
        self._coordinator, self._training, self._coordinator_pulse, self._ranks = None, None, None, ()
        self._ledger, self._ledger_call, self._ledger_pulse, self._left_calls = None, None, None, []
        self._pristine = self._ready = False
        self._lost("learner", cause, detail)
        if self.cause is None:
            lineage, step = self._rollback()
            self._spec = replace(self._spec, lineage=lineage, step=step)

    # -- what the pool tells ------------------------------------------------------------------------------------------------

    def joined(self, worker: str, actor: Any) -> None:
        if self._coordinator is not None:
            self._coordinator.add_worker.remote(worker, actor)

    def leaving(self, worker: str) -> None:
        if self._coordinator is not None:
            self._coordinator.remove_worker.remote(worker)

    def left(self, worker: str, died: bool) -> None:
        self.leaving(worker)
        if self._ledger is not None:
            self._left_calls.append(self._ledger.worker_left.remote(worker, died))

    def fail(self, cause: str) -> None:
        """The run ends after the step under way, with a checkpoint, or at once where there is nobody to write one."""
        self.cause = self.cause or cause
        if self._coordinator is None or self._ledger is None or not self._ready:
            raise RunFailed(self.cause)
        self._pool.wanted = 0
        self.hurry()

    def _settle_leaving(self) -> None:
        """A ledger that dies before it answers has forgotten the worker's leases anyway."""
        done = (
            ray.wait(self._left_calls, num_returns=len(self._left_calls), timeout=0)[0]
            if self._left_calls
            else []
        )
        for call in done:
            self._left_calls.remove(call)
            try:
                if poisoned := ray.get(call):
                    self._poisoned(poisoned)
            except ray.exceptions.RayActorError:
                logger.info("the ledger died before it answered that a worker had left")

    # -- budgets, deadlines, the end ----------------------------------------------------------------------------------------

    def _lost(self, kind: Kind, cause: str, detail: str) -> None:
        now_s = self._clock()
        self._restarts[f"{kind}/{cause}"] += 1
        self._events.write(kind, kind, "died", cause, detail)
        self._died_s.setdefault(kind, now_s)
        delay_s = self._budget.spend(kind, now_s)
        if delay_s is None:
            budget = self.run.supervision
            self.fail(
                f"the {kind} ended {budget.restarts + 1} times in {budget.window_s:g} s, the last time by {detail}"
            )
        else:
            self._after_s[kind] = now_s + delay_s

    def _recovered(self, kind: Kind) -> None:
        if kind in self._died_s:
            self._events.write(kind, kind, "recovered", "", "serves", self._clock() - self._died_s.pop(kind))

    def _keep_deadlines(self) -> None:
        hurry_s, stop_s = self._asked.get("hurry"), self.run.deadlines.stop_s
        if hurry_s is not None and self._clock() - hurry_s > stop_s:
            late = f"the step under way and its checkpoint did not end within deadlines.stop_s={stop_s:g}"
            raise RunFailed(f"{self.cause}; {late}" if self.cause else late)
