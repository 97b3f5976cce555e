"""Ray, as an attempt at a run uses it: a cluster joined or started, room in it, actors, and calls to them."""

from collections.abc import Callable
from typing import Protocol

import ray

from dynalign.actors.gateway.endpoints import endpoints_of
from dynalign.actors.remote import Calls, RayCalls
from dynalign.actors.supervision.spawner import Spawner
from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.preflight import Prepared
from dynalign.launch.ray_cluster.capacity_wait import wait_for_capacity
from dynalign.launch.ray_cluster.connection import connect
from dynalign.launch.spawner import RaySpawner


class Session(Protocol):
    """What an attempt asks for. `RaySession` is the one that is used; tests bring fake actors and no Ray."""

    calls: Calls

    def connect(self, run: RunSettings) -> bool:
        """True if a cluster was started in this machine, False if one was joined."""

    def wait_for_capacity(
        self, plan: PlacementPlan, deadline_s: float, waiting: Callable[[Mistake], None]
    ) -> Cluster:
        """Returns once the joined cluster could hold the plan. waiting: called meanwhile with what is
        lacking."""

    def spawner(self, ready: Prepared) -> Spawner:
        """Creates the run's actors."""

    def close(self) -> None:
        """Ends a cluster that was started in this machine, and leaves one that was joined."""


class RaySession:
    """`Session` on Ray."""

    def __init__(self) -> None:
        self.calls: Calls = RayCalls()

    def connect(self, run: RunSettings) -> bool:
        return connect(run)

    def wait_for_capacity(
        self, plan: PlacementPlan, deadline_s: float, waiting: Callable[[Mistake], None]
    ) -> Cluster:
        return wait_for_capacity(plan, deadline_s, waiting)

    def spawner(self, ready: Prepared) -> Spawner:
        asked = ready.endpoints
        return RaySpawner(ready, None if asked is None else endpoints_of(asked.uses))

    def close(self) -> None:
        ray.shutdown()
