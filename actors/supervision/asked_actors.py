"""The actors that answer questions: the engines of `judge.pool`, and the gateway to the endpoints.

Part of the supervision (the table in `supervisor.py`). Whoever asks them finds them by name, and asks again
after a death (`actors/pool/pool.py`, `actors/gateway/gateway_link.py`), so nobody is told of one. One `look`
takes in what is known and waits for nothing.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError

from dynalign.actors.gateway.protocol import GatewayHandle
from dynalign.actors.pool.names import POOL
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.remote import Call, Calls
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.deaths import Death, death, root_cause
from dynalign.actors.supervision.losses import Losses
from dynalign.actors.supervision.spawner import Spawner
from dynalign.actors.supervision.watched import Watched
from dynalign.actors.supervision.worker_pool import WorkerPool
from dynalign.configs.errors import UserError, one_line
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.run_folder.events import EventLog
from dynalign.run_folder.run_status import EndpointStatus, WorkerStatus

Accounts = tuple[EndpointStatus, ...]
"""Of each endpoint."""


class AskedActors:
    """spec: of the run. spawn: creates the actors. fail: ends the run, with a cause. clock: seconds,
    monotonic.

    `endpoints` is the gateway's last account of each endpoint, empty before the first, or without a gateway.
    """

    def __init__(
        self,
        spec: RunSpec,
        spawn: Spawner,
        fail: Callable[[str], None],
        events: EventLog,
        calls: Calls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        run = spec.run
        pool = run.judge.pool
        self._engines: WorkerPool[PoolWorkerHandle] = WorkerPool(
            0 if pool is None else pool.engines,
            run.deadlines,
            run.supervision,
            lambda *names: spawn.engine(spec, *names),
            self,
            events,
            calls,
            clock,
            name=POOL,
            kind="engine",
        )
        self._spec = spec
        self._spawn = spawn
        self._fail = fail
        self._calls = calls
        self._clock = clock
        self._losses = Losses(run.supervision, events, clock)
        self._gateway: Watched[GatewayHandle, None, Accounts] | None = (
            Watched("gateway", calls, clock) if spawn.asks_endpoint else None
        )
        self._gateway_served = False
        self.endpoints: Accounts = ()

    @property
    def calls(self) -> list[Call[Any]]:
        """The calls whose end is of interest."""
        starting = None if self._gateway is None else self._gateway.call
        return self._engines.calls if starting is None else [*self._engines.calls, starting]

    @property
    def restarts(self) -> Counter[str]:
        """Deaths by `kind/cause`."""
        return self._engines.restarts + self._losses.restarts

    def engines(self) -> tuple[WorkerStatus, ...]:
        """Every engine of the pool with its state."""
        return self._engines.stats()

    def gpus(self) -> int:
        """GPUs that the serving engines hold, of a run on GPUs."""
        pool = self._spec.run.judge.pool
        return 0 if pool is None else len(self._engines.serving()) * pool.tensor_parallel

    def look(self) -> None:
        """Takes in what has happened, and creates what is missing.

        Raises DeadlineExceeded when no engine finds room in the cluster, and UserError when the first gateway
        cannot use its journal or an endpoint.
        """
        self._engines.look()
        if self._gateway is not None:
            self._look_at_gateway(self._gateway)

    def clear(self) -> None:
        """Ends all of them with their children."""
        self._engines.clear()
        if self._gateway is not None:
            self._gateway.end()

    def _look_at_gateway(self, gateway: Watched[GatewayHandle, None, Accounts]) -> None:
        if gateway.is_due():
            actor = self._spawn.gateway(self._spec)
            gateway.hold(actor, call=actor.start.remote())
        try:
            lost = self._ended(gateway)
        except (RayError, UserError) as error:
            cause = root_cause(error)
            if isinstance(cause, UserError) and not self._gateway_served:
                raise cause from error  # the next one would end in the same way
            lost = death(error) or Death("failed", one_line(cause))
        if lost is not None:
            gateway.end()
            if (ends := self._losses.lost(gateway, lost)) is not None:
                self._fail(ends)

    def _ended(self, gateway: Watched[GatewayHandle, None, Accounts]) -> Death | None:
        """Why it hangs, None while it does not. Raises what it raised, or RayError where it is gone."""
        deadlines: DeadlineSettings = self._spec.run.deadlines
        if gateway.actor is None:
            return None
        if gateway.call is not None:
            if not self._calls.ended(gateway.call):
                late = self._clock() - gateway.since_s > deadlines.start_s
                start = f"start took longer than deadlines.start_s={deadlines.start_s:g}"
                return Death("hung", start) if late else None
            self._calls.answer(gateway.call)
            gateway.call = None
            self._gateway_served = True
            self._losses.recovered(gateway)
        self.endpoints = gateway.watch(gateway.actor.stats.remote).look() or self.endpoints
        return gateway.hung(deadlines.silence_s)

    # -- what the pool of engines calls: whoever asks finds them by name

    def joined(self, worker: str, actor: PoolWorkerHandle) -> None:
        """An engine is ready."""

    def leaving(self, worker: str) -> None:
        """Engines are not scaled down."""

    def left(self, worker: str, died: bool) -> None:
        """What it was asked is asked again."""

    def fail(self, cause: str) -> None:
        """Ends the run. Engines that serve go on until then, and no other is created."""
        self._engines.wanted = len(self._engines.serving())
        self._fail(cause)
