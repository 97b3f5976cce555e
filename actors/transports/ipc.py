"""GPU only. Transport on one GPU that learner and engine share: the engine reads the learner's memory (CUDA
IPC).

    learner rank 0   publish ─► overwrites the buckets on the GPU ─► WeightVersion(manifest, memory handles)
    worker           passes the handles to its engine's process ─► opens them ─► checksums on the GPU
                     ─► loads ─► checksums again, since the learner may have overwritten the buckets meanwhile

No byte leaves the GPU. For an engine that cannot read this memory, the worker requests the version in the
object store.
"""

import logging
from dataclasses import dataclass

from dynalign.actors.transports import object_store
from dynalign.actors.transports.base import FallbackActor, VersionSource
from dynalign.actors.transports.object_store import StorePublisher
from dynalign.rollout.weights.source import MemoryHandle
from dynalign.rollout.weights.version import WeightVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryOffer:
    """Where a version lies in the memory of a GPU; `WeightVersion.offer` of this transport.

    Example: ``MemoryOffer(handles=(MemoryHandle("GPU-5b1d…", 268435456, …),), publisher=<learner rank 0>)``
    """

    handles: tuple[MemoryHandle, ...]
    """One per bucket of the manifest, in order."""
    publisher: FallbackActor
    """Learner rank 0, which puts the version into the object store on request."""


class IpcPublisher:
    """Implements `Publisher`."""

    def __init__(self, publisher: FallbackActor) -> None:
        """publisher: the actor in whose process this object is."""
        self._publisher = publisher
        self._handles: list[MemoryHandle] = []
        self._store: StorePublisher | None = None

    def publish(self, learner: VersionSource, lineage: int) -> WeightVersion | None:
        """Leave the version on the learner's GPU; after the first `fallback`, put it into the object store
        instead.
        """
        if self._store is not None:
            return self._store.publish(learner, lineage)
        staging = learner.stage(lineage)
        if staging is None:
            return None
        from dynalign.rollout.weights.device_memory import shared  # imports torch, which a worker may lack

        self._handles += [shared(bucket) for bucket in staging.kept[len(self._handles) :]]
        manifest = staging.manifest
        offer = MemoryOffer(tuple(self._handles), self._publisher)
        return WeightVersion(lineage, learner.step, manifest.pack(), (), manifest.size_bytes, offer)

    def fallback(self, learner: VersionSource, version: WeightVersion) -> WeightVersion | None:
        """Put the version into the object store, and all later ones too.

        An engine that cannot read the memory once will not be able to read it later.
        """
        made = learner.staged(version.step)
        if made is None:
            return None
        self._store = StorePublisher()
        logger.warning(
            "an engine cannot read the learner's memory: weight versions take the object store from now on"
        )
        return object_store.publish(*made)
