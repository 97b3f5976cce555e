"""The rollout workers of a run: as many seats as are wanted, and a new worker for a seat whose worker has ended.

Part of the supervision (`supervision.py` has every story). One `look` takes in what is known by then and waits for nothing.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import ray

from dynalign.actors.supervision.liveness import every_s
from dynalign.actors.supervision.restart_budget import RestartBudget
from dynalign.actors.supervision.worker_seat import WorkerSeat
from dynalign.configs.errors import DeadlineExceeded, DynalignError, WeightsError, one_line
from dynalign.configs.schema import RunSettings
from dynalign.run_folder.events import EventLog

_ASKED_S = 30.0
"""Seconds within which a node that has room starts an actor's process, a busy one too."""

_STORAGE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


class PoolOwner(Protocol):
    """What the pool tells, and whom."""

    def joined(self, worker: str, actor: Any) -> None:
        """It is ready to serve."""

    def leaving(self, worker: str) -> None:
        """It takes no more leases, and finishes what it holds."""

    def left(self, worker: str, died: bool) -> None:
        """Whatever it held goes back. died: not by itself, so what it held may have broken it."""

    def fail(self, cause: str) -> None:
        """The run cannot go on."""


class WorkerPool:
    """create: makes the actor of a worker, from its seat's name and its own. `wanted` may be set at any time."""

    def __init__(
        self,
        run: RunSettings,
        create: Callable[[str, str], Any],
        owner: PoolOwner,
        events: EventLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._create, self._owner, self._events, self._clock = run, create, owner, events, clock
        self._budget = RestartBudget(run.supervision.restarts, run.supervision.window_s)
        self._seats: dict[str, WorkerSeat] = {}
        self._taken: dict[
            str, int
        ] = {}  # how often a seat that is gone was taken: no two workers of a run have one name
        self._served = False
        self.wanted = run.rollout.workers.min
        self.restarts: Counter[str] = Counter()

    @property
    def calls(self) -> list[Any]:
        """What the pool waits for."""
        return [seat.call for seat in self._seats.values() if seat.call is not None]

    @property
    def settling(self) -> bool:
        """The pool is on its way to what is wanted: workers are loading or draining, or were asked for just now. One for which the
        cluster has no room is not on its way."""
        staying = [seat for seat in self._seats.values() if seat.state != "draining"]
        return (
            len(staying) != self.wanted
            or len(staying) < len(self._seats)
            or any(self._is_coming(seat) for seat in staying)
        )

    def _is_coming(self, seat: WorkerSeat) -> bool:
        if seat.state == "placing":
            return self._clock() - seat.since_s < _ASKED_S
        return seat.state == "starting" or (seat.state == "waiting" and seat.died_s is None)

    def serving(self) -> list[tuple[str, Any]]:
        return [(seat.worker, seat.actor) for seat in self._seats.values() if seat.state == "serving"]

    def stats(self) -> list[dict[str, Any]]:
        """Every worker with its state, and what it said of itself last."""
        return [seat.stats() for seat in self._seats.values()]

    def placing(self) -> list[str]:
        return [seat.worker for seat in self._seats.values() if seat.state == "placing"]

    def look(self) -> None:
        """Takes in what has happened to every seat, and makes seats or drains them until as many stay as are wanted.

        Raises DeadlineExceeded when no worker finds room in the cluster.
        """
        pulse_every_s = every_s(len(self._seats))
        for seat in list(self._seats.values()):
            try:
                if seat.look(pulse_every_s):
                    self._joined(seat)
            except (ray.exceptions.RayError, DynalignError, OSError) as error:
                self._lost(seat, error)
            if seat.state == "empty":
                self._taken[seat.name] = seat.taken
                del self._seats[seat.name]
                self._owner.left(seat.worker, died=False)
        self._resize()
        late_s = self._run.deadlines.place_s
        if self._seats and all(
            seat.state == "placing" and self._clock() - seat.since_s > late_s for seat in self._seats.values()
        ):
            raise DeadlineExceeded(f"room in the cluster for {', '.join(self.placing())}", late_s)

    def clear(self) -> None:
        """Ends all workers with their children."""
        for seat in self._seats.values():
            seat.clear()

    def _joined(self, seat: WorkerSeat) -> None:
        seat.serve()
        self._served = True
        self._owner.joined(seat.worker, seat.actor)
        if seat.died_s is not None:
            self._events.write("worker", seat.worker, "recovered", "", "serves", self._clock() - seat.died_s)
            seat.died_s = None

    def _lost(self, seat: WorkerSeat, error: Exception) -> None:
        was, worker, cause, detail = seat.state, seat.worker, _cause(error), one_line(root_cause(error))
        seat.clear()
        if was == "draining":  # too slow, or dead: what it held goes back either way
            return
        self.restarts[f"worker/{cause}"] += 1
        self._events.write("worker", worker, "died", cause, detail)
        self._owner.left(worker, died=True)
        seat.died_s = self._clock() if seat.died_s is None else seat.died_s
        delay_s = self._budget.spend(seat.name, self._clock())
        if cause == "storage" or (was == "starting" and cause == "failed" and not self._served):
            self._owner.fail(f"{worker} ended: {detail}")  # the next one would end in the same way
        elif delay_s is None:
            budget = self._run.supervision
            self._owner.fail(
                f"{seat.name} ended {budget.restarts + 1} times in {budget.window_s:g} s, the last time by {detail}"
            )
        else:
            seat.wait(delay_s)

    def _resize(self) -> None:
        staying = {seat.name: seat for seat in self._seats.values() if seat.state != "draining"}
        names = (f"rollout-{index}" for index in range(len(self._seats) + self.wanted))
        for name in names:
            if len(staying) < self.wanted and name not in self._seats:
                seat = WorkerSeat(
                    name,
                    self._creator(name),
                    self._run.deadlines,
                    self._clock,
                    taken=self._taken.get(name, 0),
                )
                self._seats[name] = staying[name] = seat
        for seat in sorted(staying.values(), key=lambda seat: int(seat.name.rpartition("-")[2]))[
            self.wanted :
        ]:
            self._events.write("worker", seat.worker, "drains", "scaled", f"{self.wanted} workers are wanted")
            self._owner.leaving(seat.worker)
            seat.drain()

    def _creator(self, seat: str) -> Callable[[str], Any]:
        return lambda worker: self._create(seat, worker)


def root_cause(error: BaseException) -> Any:
    """What was raised in an actor, without Ray's wrapping."""
    return error.cause if isinstance(error, ray.exceptions.RayTaskError) else error


def _cause(error: Exception) -> str:
    """One word for why a worker ended: the label of its metric."""
    match root_cause(error):
        case ray.exceptions.RayActorError():
            return "died"
        case WeightsError():
            return "weights"
        case DeadlineExceeded() as late if "weight version" in late.waiting_for:
            return "weights"
        case DeadlineExceeded():
            return "hung"
        case OSError() as refused if refused.errno in _STORAGE:
            return "storage"
    return "failed"
