"""Weight transport on one GPU that learner and engine share: the engine reads the learner's memory through CUDA IPC.

    learner rank 0   publish ─► over the version before, in buckets that stay on the GPU ─► WeightVersion(manifest, memory handles)
    worker           the handles go to the engine's process ─► opened, checksums on the GPU ─► loaded ─► checksums once more

No byte leaves the GPU. An engine that cannot read there asks rank 0 for the same version in the object store.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from configs.errors import DeadlineExceeded, PublisherGone
from rollout.weight_source import MemoryHandle
from rollout.weight_version import WeightVersion

if TYPE_CHECKING:
    from learner.learner import Learner


@dataclass(frozen=True)
class MemoryOffer:
    """handles: one per bucket. publisher: learner rank 0's actor, for `spare`."""

    handles: tuple[MemoryHandle, ...]
    publisher: Any


class IpcPublisher:
    """In learner rank 0's process."""

    def __init__(self) -> None:
        self._handles: list[MemoryHandle] = []

    def publish(self, learner: "Learner", lineage: int) -> WeightVersion | None:
        """The version on the learner's GPU; None on the other ranks. Collective."""
        staging = learner.stage(lineage)
        if staging is None:
            return None
        from rollout.device_memory import shared  # workers read this module too, and may have no torch

        self._handles += [shared(bucket) for bucket in staging.kept[len(self._handles) :]]
        manifest = staging.manifest
        offer = MemoryOffer(tuple(self._handles), ray.get_runtime_context().current_actor)
        return WeightVersion(lineage, learner.step, manifest.pack(), (), manifest.size_bytes, offer)


async def spare(offer: MemoryOffer, version: WeightVersion, deadline_s: float) -> WeightVersion:
    """The same version in the object store. Raises DeadlineExceeded, or PublisherGone where a later one has taken its place."""
    try:
        async with asyncio.timeout(deadline_s):
            stored: WeightVersion | None = await offer.publisher.spare.remote(version.step)
    except TimeoutError as error:
        raise DeadlineExceeded(f"weight version {version.label} in the object store", deadline_s) from error
    except ray.exceptions.RayActorError as error:
        raise PublisherGone(f"the publisher of weight version {version.label} has died: {error}") from error
    if stored is None:
        raise PublisherGone(f"weight version {version.label} has a successor by now")
    return stored
