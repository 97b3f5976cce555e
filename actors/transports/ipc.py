"""Weight transport on one GPU that learner and engine share: the engine reads the learner's memory through
CUDA IPC.

    learner rank 0   publish ─► over the version before, in buckets that stay on the GPU ─►
    WeightVersion(manifest, memory handles) worker           the handles go to the engine's process ─►
    opened, checksums on the GPU ─► loaded ─► checksums once more

No byte leaves the GPU. An engine that cannot read there asks rank 0 for the same version in the object store.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalign.actors.transports import object_store as transport_object_store
from dynalign.actors.transports.object_store import StorePublisher
from dynalign.rollout.weights.source import MemoryHandle
from dynalign.rollout.weights.version import WeightVersion

if TYPE_CHECKING:
    from dynalign.learner.learner import Learner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryOffer:
    """handles: one per bucket. publisher: learner rank 0's actor, for `fallback`."""

    handles: tuple[MemoryHandle, ...]
    publisher: Any


class IpcPublisher:
    """In a learner rank's process. publisher: see `MemoryOffer`."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._handles: list[MemoryHandle] = []
        self._store: StorePublisher | None = None

    def publish(self, learner: "Learner", lineage: int) -> WeightVersion | None:
        """The version on the learner's GPU; None on the other ranks. Collective."""
        if self._store is not None:
            return self._store.publish(learner, lineage)
        staging = learner.stage(lineage)
        if staging is None:
            return None
        from dynalign.rollout.weights.device_memory import (
            shared,
        )

        self._handles += [shared(bucket) for bucket in staging.kept[len(self._handles) :]]
        manifest = staging.manifest
        offer = MemoryOffer(tuple(self._handles), self._publisher)
        return WeightVersion(lineage, learner.step, manifest.pack(), (), manifest.size_bytes, offer)

    def fallback(self, learner: "Learner", version: WeightVersion) -> WeightVersion | None:
        """The same version in the object store; None once it has a successor. Whatever keeps one engine out
        will keep it out, so later versions go to the object store at once."""
        made = learner.staged(version.step)
        if made is None:
            return None
        self._store = StorePublisher()
        logger.warning(
            "an engine cannot read the learner's memory: weight versions take the object store from now on"
        )
        return transport_object_store.publish(*made)
