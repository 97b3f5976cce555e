"""One slot of the rollout pool, and the worker in it, from its creation until it has left.

    waiting ──► placing ──► starting ──► serving ──► draining ──► empty
    (delay)     no node     engine       works       finishes its groups
                has room    loads

From any state but the first, a worker that dies, hangs or fails is ended, and the pool decides what follows.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Generic, Literal, Protocol, TypeVar

import psutil

from dynalign.actors.remote import Call, Calls, RemoteMethod
from dynalign.actors.supervision.liveness import EVERY_S, Liveness
from dynalign.actors.worker.protocol import WorkerProcess
from dynalign.configs.errors import WorkerHangs
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.run_folder.run_status import WorkerStatus

_EXIT_S = 1.0
"""Seconds a process gets to exit after `ray.kill`. Killed sooner, the raylet reports a crash in the
terminal."""

SeatState = Literal["waiting", "placing", "starting", "serving", "draining", "empty"]


class SeatedActor(Protocol):
    """What a seat asks of the worker in it: a rollout worker, or an engine with fixed weights."""

    here: RemoteMethod[[], WorkerProcess]
    start: RemoteMethod[[], None]
    serve: RemoteMethod[[], None]
    stop: RemoteMethod[[], None]
    stats: RemoteMethod[[], Any]


Seated = TypeVar("Seated", bound=SeatedActor)


class WorkerSeat(Generic[Seated]):
    """name: the seat's (`rollout-0`), whose cores every worker in it takes. create: makes a worker of a
    given name.

    taken: workers that were in it before. clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[str], Seated],
        calls: Calls,
        deadlines: DeadlineSettings,
        clock: Callable[[], float] = time.monotonic,
        taken: int = 0,
    ) -> None:
        self.name = name
        self._create = create
        self._calls = calls
        self._deadlines = deadlines
        self._clock = clock
        self.taken = taken
        self.state: SeatState = "waiting"
        self.since_s = 0.0
        self.actor: Seated | None = None
        self.died_s: float | None = None
        self._placed: Call[WorkerProcess] | None = None
        self._working: Call[None] | None = None
        self._liveness: Liveness[Any] | None = None
        self._process: WorkerProcess | None = None

    @property
    def worker(self) -> str:
        """The name of the worker in it: the seat's, with a number from the second worker on."""
        return self.name if self.taken < 2 else f"{self.name}.{self.taken}"

    @property
    def call(self) -> Call[Any] | None:
        """The call that the seat waits for, None while it is waiting or empty."""
        return self._placed or self._working

    def wait(self, delay_s: float) -> None:
        """A new worker, in `delay_s` seconds at the earliest."""
        self._enter("waiting")
        self.since_s = self._clock() + delay_s

    def look(self, ask_every_s: float = EVERY_S) -> bool:
        """Goes on as far as it can without waiting. True when a worker is ready to serve (call `serve`).

        Raises what ended the worker: an error of Ray's when it is gone, WorkerHangs, or the worker's own.
        """
        if self.state == "waiting" and self._clock() >= self.since_s:
            self.taken += 1
            self._process = None
            self.actor = self._create(self.worker)
            self._enter("placing")
            self._placed = self.actor.here.remote()
        if self._placed is not None and self._calls.ended(self._placed):
            self._process = self._calls.answer(self._placed)
            assert self.actor is not None
            self._enter("starting")
            self._working = self.actor.start.remote()
            return False
        if self._working is not None and self._calls.ended(self._working):
            self._calls.answer(self._working)
            if self.state == "starting":
                return True
            self.clear()  # it has left by itself, and holds no group
            return False
        self._keep_deadlines(ask_every_s)
        return False

    def serve(self) -> None:
        """Lets a worker that is ready take leases."""
        assert self.actor is not None
        self._enter("serving")
        self._working = self.actor.serve.remote()
        self._liveness = Liveness(self.actor.stats.remote, self._calls, self._clock)

    def drain(self) -> None:
        """No more leases; it finishes the groups it holds. One that does not serve yet is ended."""
        if self.state == "serving" and self.actor is not None:
            self.actor.stop.remote()
            self.state = "draining"
            self.since_s = self._clock()
        elif self.state != "draining":
            self.clear()

    def clear(self) -> None:
        """Ends the worker with its children."""
        if self.actor is not None:
            self._calls.kill(self.actor)
            if self._process is not None and self._process[0] == os.uname().nodename:
                _kill(*self._process[1:])  # a stopped process does not react to Ray
        self.actor = None
        self._process = None
        self._enter("empty")

    def stats(self) -> WorkerStatus:
        """What status and metrics show of the worker: its state, and its last answer to `stats`."""
        answer = None if self._liveness is None else self._liveness.answer
        known = {} if answer is None else asdict(answer)
        return WorkerStatus.from_json(known | {"name": self.worker, "state": self.state})

    def _keep_deadlines(self, ask_every_s: float) -> None:
        limit_s = self._deadlines.start_s if self.state == "starting" else self._deadlines.drain_s
        if self.state in ("starting", "draining") and self._clock() - self.since_s > limit_s:
            raise WorkerHangs(f"{self.worker}, {self.state}", limit_s)
        if self._liveness is not None:
            self._liveness.look(ask_every_s)
            if self._liveness.silent_s > self._deadlines.silence_s:
                raise WorkerHangs(f"a sign of life of {self.worker}", self._deadlines.silence_s)

    def _enter(self, state: SeatState) -> None:
        self.state = state
        self.since_s = self._clock()
        self._placed = None
        self._working = None
        self._liveness = None


def _kill(pid: int, started_s: float) -> None:
    """Ends a process of this machine, and its children, if it still is the one that began at `started_s`."""
    try:
        process = psutil.Process(pid)
        if process.create_time() != started_s:  # another process by now
            return
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:  # Ray was faster
        return
    psutil.wait_procs([process], timeout=_EXIT_S)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
