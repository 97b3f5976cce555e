"""One seat of the rollout pool: the worker that sits in it, from the moment it is asked for until it has left.

waiting ──► placing ──► starting ──► serving ──► draining ──► (empty)
(delay)     no room     engine       works       finishes its groups
            in the      loads
            cluster
any of them but the first ──died, hung, failed──► the supervision replaces the worker, or gives up
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import ray

from dynalign.actors.supervision.liveness import EVERY_S, Liveness
from dynalign.configs.errors import WorkerHangs
from dynalign.configs.sections.deadlines import DeadlineSettings

_LEAVES_S = 1.0
"""For a process to hear Ray's kill and leave: raylet calls one that is gone before an accident, in the terminal of a run that went well."""

SeatState = Literal["waiting", "placing", "starting", "serving", "draining", "empty"]


@dataclass
class WorkerSeat:
    """name: of the seat (`rollout-0`), whose cores every worker in it takes. create: makes the actor of a worker of a given name."""

    name: str
    create: Callable[[str], Any]
    deadlines: DeadlineSettings
    clock: Callable[[], float] = time.monotonic
    state: SeatState = "waiting"
    since_s: float = 0.0
    taken: int = 0
    actor: Any = None
    died_s: float | None = None
    _call: Any = None
    _pulse: Liveness | None = None
    _process: tuple[str, int, float] | None = None

    @property
    def worker(self) -> str:
        """The name of the worker in it: the seat's, with a number from the second worker on."""
        return self.name if self.taken < 2 else f"{self.name}.{self.taken}"

    @property
    def call(self) -> Any:
        """What the seat waits for, None while it is waiting or empty."""
        return self._call

    def wait(self, delay_s: float) -> None:
        """A new worker, but not before `delay_s` from now."""
        self._enter("waiting", None)
        self.since_s = self.clock() + delay_s

    def look(self, pulse_every_s: float = EVERY_S) -> bool:
        """Goes on as far as it can without waiting; True when a worker has just become ready to serve (call `serve`).

        Raises what ended the worker: RayActorError when it died, WorkerHangs, or the error of its own.
        """
        if self.state == "waiting" and self.clock() >= self.since_s:
            self.taken += 1
            self.actor, self._process = self.create(self.worker), None
            self._enter("placing", self.actor.here.remote())
        if self._call is not None and ray.wait([self._call], timeout=0)[0]:
            return self._went_on(ray.get(self._call))
        if self.state in ("starting", "draining") and self.clock() - self.since_s > self._limit_s():
            raise WorkerHangs(f"{self.worker}, {self.state}", self._limit_s())
        if self._pulse is not None:
            self._pulse.look(pulse_every_s)
            if self._pulse.silent_s > self.deadlines.silence_s:
                raise WorkerHangs(f"a sign of life of {self.worker}", self.deadlines.silence_s)
        return False

    def serve(self) -> None:
        self._enter("serving", self.actor.serve.remote())
        self._pulse = Liveness(self.actor.stats.remote, self.clock)

    def drain(self) -> None:
        """No more leases; what it holds it finishes. One that does not serve yet has nothing to finish."""
        if self.state == "serving":
            self.actor.stop.remote()
            self._enter("draining", self._call)
        elif self.state != "draining":
            self.clear()

    def clear(self) -> None:
        """Ends the worker with its children."""
        if self.actor is not None:
            ray.kill(self.actor, no_restart=True)
            if self._process is not None and self._process[0] == os.uname().nodename:
                _kill(*self._process[1:])  # one that is stopped does not hear Ray
        self.actor, self._process = None, None
        self._enter("empty", None)

    def stats(self) -> dict[str, Any]:
        """What status and metrics show of it."""
        told = {} if self._pulse is None or self._pulse.answer is None else self._pulse.answer
        return {"version": None, "groups_in_flight": 0} | told | {"name": self.worker, "state": self.state}

    def _went_on(self, answer: Any) -> bool:
        if self.state == "placing":
            self._process = answer
            self._enter("starting", self.actor.start.remote())
            return False
        if self.state == "starting":
            return True
        self.clear()  # it has left by itself, with nothing in its hands
        return False

    def _enter(self, state: SeatState, call: Any) -> None:
        self.state, self.since_s, self._call = state, self.clock(), call
        if state not in ("serving", "draining"):
            self._pulse = None

    def _limit_s(self) -> float:
        return self.deadlines.start_s if self.state == "starting" else self.deadlines.drain_s


def _kill(pid: int, started_s: float) -> None:
    try:
        process = psutil.Process(pid)
        if process.create_time() != started_s:  # another process by now
            return
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:  # Ray was faster
        return
    psutil.wait_procs([process], timeout=_LEAVES_S)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
