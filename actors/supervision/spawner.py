"""What the supervision needs to create the actors of a run, and to go back to a checkpoint."""

from collections.abc import Callable
from typing import Protocol

from dynalign.actors.coordinator.protocol import CoordinatorHandle
from dynalign.actors.gateway.protocol import GatewayHandle
from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.ledger.protocol import LedgerHandle
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.protocol import RolloutWorkerHandle

Rollback = Callable[[], tuple[int, int]]
"""Begins a new lineage after the learner's death: its number, and the step of the newest whole checkpoint
(0: none)."""


class Spawner(Protocol):
    """Creates actors and starts none. `launch/spawner.py` does it on Ray; tests bring fake actors."""

    @property
    def asks_endpoint(self) -> bool:
        """Whether the run asks an endpoint, so that it has a gateway."""

    def ledger(self, spec: RunSpec) -> LedgerHandle:
        """The ledger, from the checkpoint of `spec.step`."""

    def ranks(self, spec: RunSpec) -> tuple[LearnerRankActor, ...]:
        """All learner ranks, rank 0 first."""

    def coordinator(
        self, spec: RunSpec, ranks: tuple[LearnerRankActor, ...], joins: bool, pristine: bool
    ) -> CoordinatorHandle:
        """The coordinator. joins: learner and ledger are running already. pristine: see `Coordinator`."""

    def worker(self, spec: RunSpec, seat: str, name: str) -> RolloutWorkerHandle:
        """A rollout worker. seat: whose cores it takes. name: its own, which no worker before it had."""

    def engine(self, spec: RunSpec, seat: str, name: str) -> PoolWorkerHandle:
        """An engine of `judge.pool`, which callers find by the name of its seat. name: its own."""

    def gateway(self, spec: RunSpec) -> GatewayHandle:
        """The gateway to the endpoint."""
