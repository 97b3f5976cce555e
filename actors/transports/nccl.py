"""Weight transport between GPUs: learner rank 0 broadcasts a version to all engines that are there for it
(`weight_group.py`).

    learner rank 0   publish ─► end the epoch before ─► over the version before, in buckets that stay on the
    GPU
                     ─► a copy into the object store ─► WeightVersion, and a thread that waits for READY and
                     broadcasts
    worker           READY ─► its place among the members ─► the engine's process joins, receives, verifies,
    loads

The learner goes on with its next step meanwhile. Who is late, and everybody when the members do not come
together, takes the copy.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray

from dynalign.actors.transports import object_store as transport_object_store
from dynalign.rollout.weights.source import BroadcastMember
from dynalign.rollout.weights.version import WeightVersion

if TYPE_CHECKING:
    from dynalign.learner.learner import Learner
    from dynalign.rollout.weights.broadcast import Root

logger = logging.getLogger(__name__)

_WAITS = 8
"""Parts of weights.deadline_s, one for each wait: for the members, for all of them to join, for `go` (two),
for the bytes of a bucket. The rest is left for the object store."""


@dataclass(frozen=True)
class BroadcastOffer:
    """Where the root's store is. deadline_s: of each wait."""

    address: str
    port: int
    deadline_s: float


class NcclPublisher:
    """In a learner rank's process. deadline_s: weights.deadline_s."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s / _WAITS
        self._root: Root | None = None
        self._hangs = False

    def publish(self, learner: "Learner", lineage: int) -> WeightVersion | None:
        """The version, in the object store and on its way; None on the other ranks. Collective."""
        if self._root is not None and not self._hangs and not self._root.settle():
            self._hangs = True
            logger.error(
                "a broadcast of weights hangs in the driver: versions take the object store from now on"
            )
        if self._hangs:
            made = learner.weights(lineage)
            return None if made is None else transport_object_store.publish(*made)
        staging = learner.stage(lineage)
        if staging is None:
            return None
        if self._root is None:
            from dynalign.rollout.weights.broadcast import (
                Root,
            )

            self._root = Root(ray.util.get_node_ip_address(), self._deadline_s)
        stored = transport_object_store.publish(*staging.on_host())
        self._root.send(stored.label, staging.buckets)
        return replace(stored, offer=BroadcastOffer(self._root.address, self._root.port, self._deadline_s))


async def place(offer: BroadcastOffer, version: WeightVersion, worker: str, ranks: int) -> BroadcastMember:
    """The worker's place among the members; its engine takes `ranks` ranks. Raises TransferFailed."""
    from dynalign.rollout.weights.broadcast import ready

    return await asyncio.to_thread(
        ready, offer.address, offer.port, version.label, worker, ranks, offer.deadline_s
    )
