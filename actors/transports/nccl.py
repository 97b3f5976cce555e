"""GPU only. Transport between GPUs: learner rank 0 broadcasts a version to the engines that are ready for it.

    learner rank 0   publish ─► ends the epoch before ─► overwrites the buckets on the GPU
                     ─► copies the version into the object store ─► WeightVersion
                     a thread waits for READY and broadcasts (`rollout/weights/broadcast.py`)
    worker           READY ─► its membership ─► the engine joins the group, receives, verifies, loads

The learner continues with its next step meanwhile. A late worker loads the copy, and so do all if the group
does not form.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray

from dynalign.actors.transports import object_store
from dynalign.actors.transports.base import VersionSource
from dynalign.rollout.weights.source import BroadcastMember
from dynalign.rollout.weights.version import WeightVersion

if TYPE_CHECKING:
    from dynalign.rollout.weights.broadcast import Root

logger = logging.getLogger(__name__)

_WAITS = 8
"""Each wait of a broadcast gets this fraction of weights.deadline_s: for the members, for all to join, for
`go` (two), for a bucket's bytes. The rest remains for loading from the object store."""


@dataclass(frozen=True)
class BroadcastOffer:
    """Where workers register for the broadcast of a version; `WeightVersion.offer` of this transport.

    Example: ``BroadcastOffer("10.0.0.7", 41877, deadline_s=15.0)``
    """

    address: str
    """The IP address of learner rank 0's node."""
    port: int
    """The TCP port of the root's key-value store there."""
    deadline_s: float
    """Seconds for each wait of a member."""


class NcclPublisher:
    """Implements `Publisher`."""

    def __init__(self, deadline_s: float) -> None:
        """deadline_s: weights.deadline_s, in seconds."""
        self._deadline_s = deadline_s / _WAITS
        self._root: Root | None = None
        self._hangs = False

    def publish(self, learner: VersionSource, lineage: int) -> WeightVersion | None:
        """Put the version into the object store, and begin to broadcast it.

        After a broadcast that hangs in the driver, later versions use the object store alone.
        """
        if self._root is not None and not self._hangs and not self._root.settle():
            self._hangs = True
            logger.error(
                "a broadcast of weights hangs in the driver: versions take the object store from now on"
            )
        if self._hangs:
            made = learner.weights(lineage)
            return None if made is None else object_store.publish(*made)
        staging = learner.stage(lineage)
        if staging is None:
            return None
        if self._root is None:
            from dynalign.rollout.weights.broadcast import Root  # imports torch, which a worker may lack

            address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            self._root = Root(address, self._deadline_s)
        stored = object_store.publish(*staging.on_host())
        self._root.send(stored.label, staging.buckets)
        return replace(stored, offer=BroadcastOffer(self._root.address, self._root.port, self._deadline_s))

    def fallback(self, learner: VersionSource, version: WeightVersion) -> WeightVersion | None:
        """Return `version`: it is in the object store already."""
        return version


async def member(offer: BroadcastOffer, version: WeightVersion, worker: str, ranks: int) -> BroadcastMember:
    """Register for the broadcast, and return the worker's membership. Raises TransferFailed.

    ranks: how many processes of the worker's engine receive, one per GPU.
    """
    from dynalign.rollout.weights.broadcast import ready

    return await asyncio.to_thread(
        ready, offer.address, offer.port, version.label, worker, ranks, offer.deadline_s
    )
