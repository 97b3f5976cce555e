"""Workers of one kind: as many seats as are wanted, and a new worker where one has ended.

Part of the supervision (the table in `supervisor.py`): the rollout workers, and the engines of `judge.pool`.
One `look` takes in what is known and waits for nothing.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ray.exceptions import RayError

from dynalign.actors.remote import Call, Calls
from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.actors.supervision.liveness import every_s
from dynalign.actors.supervision.restart_budget import RestartBudget
from dynalign.actors.supervision.worker_seat import Seated, SeatedActor, WorkerSeat
from dynalign.configs.errors import DeadlineExceeded, DynalignError, WeightsError, one_line
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.run_folder.events import EventLog, Kind
from dynalign.run_folder.run_status import WorkerStatus

_PLACED_S = 30.0
"""Seconds within which a node that has room starts an actor's process, even under load."""

_STORAGE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


Joining = TypeVar("Joining", bound=SeatedActor, contravariant=True)


class PoolOwner(Protocol[Joining]):
    """Whom the pool notifies."""

    def joined(self, worker: str, actor: Joining) -> None:
        """The worker is ready to serve."""

    def leaving(self, worker: str) -> None:
        """The worker takes no more leases, and finishes the groups it holds."""

    def left(self, worker: str, died: bool) -> None:
        """What the worker held goes back. died: not of its own accord, so what it held may be the cause."""

    def fail(self, cause: str) -> None:
        """The run cannot go on."""


class WorkerPool(Generic[Seated]):
    """wanted: workers, which may be changed at any time. create: makes the actor of a worker, from its seat's
    name and its own. clock: seconds, monotonic. name: with which those of the seats begin. kind: what the
    workers are, in events.

    `restarts` counts deaths by `kind/cause`.
    """

    def __init__(
        self,
        wanted: int,
        deadlines: DeadlineSettings,
        supervision: SupervisionSettings,
        create: Callable[[str, str], Seated],
        owner: PoolOwner[Seated],
        events: EventLog,
        calls: Calls,
        clock: Callable[[], float] = time.monotonic,
        name: str = "rollout",
        kind: Kind = "worker",
    ) -> None:
        self.wanted = wanted
        self._deadlines = deadlines
        self._supervision = supervision
        self._create = create
        self._owner = owner
        self._events = events
        self._calls = calls
        self._clock = clock
        self._name = name
        self._kind: Kind = kind
        self._budget = RestartBudget(supervision.restarts, supervision.window_s)
        self._seats: dict[str, WorkerSeat[Seated]] = {}
        # How many workers a seat had that is gone: no two workers of a run have one name.
        self._taken: dict[str, int] = {}
        self._served = False
        self._judge_fails = False
        self.restarts: Counter[str] = Counter()

    @property
    def calls(self) -> list[Call[Any]]:
        """The calls whose end is of interest."""
        return [seat.call for seat in self._seats.values() if seat.call is not None]

    @property
    def settling(self) -> bool:
        """Whether workers are loading, draining or just asked for. One that waits for room in the cluster
        is not counted: it may wait for hours."""
        staying = [seat for seat in self._seats.values() if seat.state != "draining"]
        return (
            len(staying) != self.wanted
            or len(staying) < len(self._seats)
            or any(self._is_coming(seat) for seat in staying)
        )

    def _is_coming(self, seat: WorkerSeat[Seated]) -> bool:
        if seat.state == "placing":
            return self._clock() - seat.since_s < _PLACED_S
        return seat.state == "starting" or (seat.state == "waiting" and seat.died_s is None)

    def serving(self) -> list[tuple[str, Seated]]:
        """Name and actor of every worker that takes leases."""
        return [
            (seat.worker, seat.actor)
            for seat in self._seats.values()
            if seat.state == "serving" and seat.actor is not None
        ]

    def stats(self) -> tuple[WorkerStatus, ...]:
        """Every worker with its state and its last figures."""
        return tuple(seat.stats() for seat in self._seats.values())

    def placing(self) -> tuple[str, ...]:
        """Names of the workers for which no node has room yet."""
        return tuple(seat.worker for seat in self._seats.values() if seat.state == "placing")

    def look(self) -> None:
        """Takes in what has happened to every seat, then adds or drains seats until as many stay as are
        wanted.

        Raises DeadlineExceeded when no worker finds room in the cluster.
        """
        ask_every_s = every_s(len(self._seats))
        for seat in list(self._seats.values()):
            try:
                if seat.look(ask_every_s):
                    self._joined(seat)
            except (RayError, DynalignError, OSError) as error:
                self._lost(seat, error)
            if seat.state == "empty":
                self._taken[seat.name] = seat.taken
                del self._seats[seat.name]
                self._owner.left(seat.worker, died=False)
        self._look_at_judges()
        self._resize()
        late_s = self._deadlines.place_s
        if self._seats and all(
            seat.state == "placing" and self._clock() - seat.since_s > late_s for seat in self._seats.values()
        ):
            raise DeadlineExceeded(f"room in the cluster for {', '.join(self.placing())}", late_s)

    def clear(self) -> None:
        """Ends all workers with their children."""
        for seat in self._seats.values():
            seat.clear()

    def _look_at_judges(self) -> None:
        """The first group for which the judge could not be reached is told, with the cause; metrics count
        all failures."""
        if self._judge_fails:
            return
        for worker in self.stats():
            if worker.judge_failure:
                self._judge_fails = True
                self._events.write(self._kind, worker.name, "judge fails", "judge", worker.judge_failure)
                return

    def _joined(self, seat: WorkerSeat[Seated]) -> None:
        assert seat.actor is not None
        seat.serve()
        self._served = True
        self._owner.joined(seat.worker, seat.actor)
        if seat.died_s is not None:
            lost_s = self._clock() - seat.died_s
            self._events.write(self._kind, seat.worker, "recovered", "", "serves", lost_s)
            seat.died_s = None

    def _lost(self, seat: WorkerSeat[Seated], error: Exception) -> None:
        state = seat.state
        worker = seat.worker
        cause, detail = why_ended(error)
        seat.clear()
        if state == "draining":  # too slow, or dead: what it held goes back either way
            return
        self.restarts[f"{self._kind}/{cause}"] += 1
        self._events.write(self._kind, worker, "died", cause, detail)
        self._owner.left(worker, died=True)
        seat.died_s = self._clock() if seat.died_s is None else seat.died_s
        delay_s = self._budget.spend(seat.name, self._clock())
        if cause == "storage" or (state == "starting" and cause == "failed" and not self._served):
            self._owner.fail(f"{worker} ended: {detail}")  # the next one would end in the same way
        elif delay_s is None:
            budget = self._supervision
            deaths = f"{seat.name} ended {budget.restarts + 1} times in {budget.window_s:g} s"
            self._owner.fail(f"{deaths}, the last time by {detail}")
        else:
            seat.wait(delay_s)

    def _resize(self) -> None:
        staying = {seat.name: seat for seat in self._seats.values() if seat.state != "draining"}
        for name in (f"{self._name}-{index}" for index in range(len(self._seats) + self.wanted)):
            if len(staying) >= self.wanted:
                break
            if name not in self._seats:
                staying[name] = self._seats[name] = self._new_seat(name)
        for seat in sorted(staying.values(), key=_number)[self.wanted :]:
            self._events.write(
                self._kind, seat.worker, "drains", "scaled", f"{self.wanted} workers are wanted"
            )
            self._owner.leaving(seat.worker)
            seat.drain()

    def _new_seat(self, name: str) -> WorkerSeat[Seated]:
        def create(worker: str) -> Seated:
            return self._create(name, worker)

        taken = self._taken.get(name, 0)
        return WorkerSeat(name, create, self._calls, self._deadlines, self._clock, taken)


def _number(seat: WorkerSeat[Any]) -> int:
    return int(seat.name.rpartition("-")[2])


def why_ended(error: Exception) -> tuple[str, str]:
    """One word for why a worker ended, which is the label of its metric, and a line for people."""
    if (gone := death(error)) is not None:
        return gone.cause, gone.detail
    cause = root_cause(error)
    return _label(cause), one_line(cause)


def _label(error: BaseException) -> str:
    match error:
        case WeightsError():
            return "weights"
        case DeadlineExceeded() as late if "weight version" in late.waiting_for:
            return "weights"
        case DeadlineExceeded():
            return "hung"
        case OSError() as refused if refused.errno in _STORAGE:
            return "storage"
    # Raised in the worker because another actor that it called is gone.
    return "failed" if (gone := death(error)) is None else gone.cause
