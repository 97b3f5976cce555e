"""A supervised run in one process, without Ray: fake actors, virtual time, and a test that decides what
dies when."""

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from ray.exceptions import ActorDiedError

from dynalign.actors.coordinator.protocol import CoordinatorHandle, Ending
from dynalign.actors.gateway.protocol import GatewayHandle
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.pool.protocol import PoolWorkerHandle, PoolWorkerStats
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.departures import Poisoned
from dynalign.actors.supervision.supervisor import Supervisor
from dynalign.actors.worker.protocol import RolloutWorkerHandle, WorkerStats
from dynalign.configs.schema import RunSettings
from dynalign.run_folder.events import read_events
from dynalign.run_folder.run_status import EndpointStatus, RunStatus

SETTINGS: dict[str, Any] = {
    "name": "supervised",
    "model": "none",
    "steps": 8,
    "deadlines": {"silence_s": 60.0, "start_s": 100.0, "stop_s": 30.0},
    "supervision": {"restarts": 2, "window_s": 3600.0},
    "rollout": {"workers": {"min": 2, "max": 2}},
}


ACCOUNT: dict[str, Any] = {
    "issued": 4,
    "pending": 0,
    "leased": 0,
    "scored": 1,
    "trained": 2,
    "withheld": 1,
    "withheld_by_reason": {"poison": 1},
}
"""A part of a ledger's status."""
WORKER_STATS = WorkerStats("", 0, 0, 0, 0, 0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
ACCOUNT_OF_ENDPOINT = EndpointStatus("big", 1, 40, 2, 9_000, 0.12, 300.0)
STATUS = LedgerStatus(4, 0, 0, 1, 2, 1, 0, 0, 0, {"poison": 1}, 1, 0, True, None, "", 0.0, {})


class FakeCall:
    """A call that ends when the actor answers or dies."""

    def __init__(self) -> None:
        self.ended = False
        self.outcome: Any = None

    def end(self, outcome: Any) -> None:
        if not self.ended:
            self.ended = True
            self.outcome = outcome

    def __await__(self) -> Generator[Any, None, Any]:
        raise NotImplementedError
        yield


class FakeMethod:
    """A method of a fake actor. `outcome`: what each call answers or raises; `...` for calls that do not
    end."""

    def __init__(self, outcome: Any = ...) -> None:
        self.outcome = outcome
        self.asked: list[tuple[Any, ...]] = []
        self.calls: list[FakeCall] = []

    def remote(self, *arguments: Any) -> FakeCall:
        call = FakeCall()
        self.asked.append(arguments)
        self.calls.append(call)
        if self.outcome is not ...:
            call.end(self.outcome)
        return call

    def end(self, outcome: Any) -> None:
        """Ends every call that was made, and all later ones."""
        self.outcome = outcome
        for call in self.calls:
            call.end(outcome)


class FakeActor:
    """An actor of one name. methods: those that answer at once, with their answers; all others do not end."""

    def __init__(self, name: str, **methods: Any) -> None:
        self.name = name
        self.killed = False
        self.methods: defaultdict[str, FakeMethod] = defaultdict(FakeMethod)
        self.methods |= {method: FakeMethod(answer) for method, answer in methods.items()}

    def __getattr__(self, method: str) -> FakeMethod:
        return self.methods[method]

    def die(self, error: BaseException | None = None) -> None:
        """Every call, also a later one, raises `error`."""
        for method in ("train", "start", "serve", "status", "look", "stats", "worker_left", *self.methods):
            self.methods[method].end(error or ActorDiedError())

    def hang(self) -> None:
        """No call made from now on is answered."""
        for method in self.methods.values():
            method.outcome = ...


class World:
    """The cluster (`Spawner`), Ray (`Calls`), the clock and the disk of a supervised run."""

    def __init__(self, folder: Path, asks_endpoint: bool = False, **settings: Any) -> None:
        self.now_s = 0.0
        self.created: dict[str, list[FakeActor]] = defaultdict(list)
        self.poisoned: list[Poisoned] = []
        self.spawned: list[tuple[Any, ...]] = []
        self.newest_step = 0
        self.state = "running"  # what a coordinator says of itself
        self.script: list[Callable[[], object]] = []  # one more is done in each second that passes
        self.lineage = 1
        self.worker_methods: dict[str, Any] = {
            "here": ("elsewhere", 1, 0.0),
            "start": None,
            "stats": WORKER_STATS,
        }
        self.engine_methods = self.worker_methods | {"stats": PoolWorkerStats("", 0, 0, 0)}
        self.gateway_methods: dict[str, Any] = {"start": None, "stats": (ACCOUNT_OF_ENDPOINT,)}
        self.asks_endpoint = asks_endpoint
        run = RunSettings.model_validate(SETTINGS | settings)
        self.folder = folder
        self.spec = RunSpec(run, str(folder), self.lineage, 0, "hash")
        self.supervisor = Supervisor(
            self.spec, self, self._rollback, lambda: self.newest_step, self.poisoned.extend, self, self.clock
        )

    # -- the clock and the disk

    def clock(self) -> float:
        return self.now_s

    def _rollback(self) -> tuple[int, int]:
        self.lineage += 1
        return self.lineage, self.newest_step

    # -- `Calls`

    def wait(self, calls: Sequence[Any], timeout_s: float) -> None:
        self.now_s += timeout_s
        if self.script:
            self.script.pop(0)()

    def ended(self, call: Any) -> bool:
        return bool(call.ended)

    def answer(self, call: Any) -> Any:
        if isinstance(call.outcome, BaseException):
            raise call.outcome
        return call.outcome

    def kill(self, actor: object) -> None:
        assert isinstance(actor, FakeActor)
        actor.killed = True
        actor.die()

    # -- `Spawner`

    def ledger(self, spec: RunSpec) -> LedgerHandle:
        return cast(LedgerHandle, self._new("ledger", spec, start=None, status=STATUS, worker_left=[]))

    def ranks(self, spec: RunSpec) -> tuple[LearnerRankActor, ...]:
        ranks = [self._new("learner", spec, name) for name in ("learner-0", "learner-1")]
        return cast(tuple[LearnerRankActor, ...], tuple(ranks))

    def coordinator(
        self, spec: RunSpec, ranks: tuple[LearnerRankActor, ...], joins: bool, pristine: bool
    ) -> CoordinatorHandle:
        status = RunStatus(spec.run.name, self.state, lineage=spec.lineage)
        return cast(CoordinatorHandle, self._new("coordinator", spec, joins, pristine, look=status))

    def worker(self, spec: RunSpec, seat: str, name: str) -> RolloutWorkerHandle:
        return cast(RolloutWorkerHandle, self._new(name, spec, seat, **self.worker_methods))

    def engine(self, spec: RunSpec, seat: str, name: str) -> PoolWorkerHandle:
        return cast(PoolWorkerHandle, self._new(name, spec, seat, **self.engine_methods))

    def gateway(self, spec: RunSpec) -> GatewayHandle:
        return cast(GatewayHandle, self._new("gateway", spec, **self.gateway_methods))

    def _new(self, name: str, *arguments: Any, **methods: Any) -> FakeActor:
        actor = FakeActor(name, **methods)
        self.created[name].append(actor)
        self.spawned.append((name, *arguments))
        return actor

    # -- what a test does

    def look(self, times: int = 1) -> None:
        """So many seconds pass."""
        for _ in range(times):
            self.supervisor.look(1.0)

    def until(self, there: Callable[[], object], most: int = 200) -> None:
        """Looks until something is there."""
        for _ in range(most):
            if there():
                return
            self.look()
        raise AssertionError(f"not within {most} s: {self.events()}")

    def running(self) -> "World":
        """Every actor serves, and the coordinator says so."""
        self.look(6)
        assert [worker.state for worker in self.supervisor.report().workers] == ["serving", "serving"]
        return self

    def newest(self, name: str) -> FakeActor:
        return self.created[name][-1]

    def finish(self, state: Literal["finished", "interrupted"] = "finished") -> None:
        self.newest("coordinator").train.end(Ending(state, dict(ACCOUNT), None))

    def events(self) -> list[tuple[str, str, str]]:
        """(actor, what, cause) of every event so far."""
        return [(event.actor, event.what, event.cause) for event in read_events(self.folder)]
