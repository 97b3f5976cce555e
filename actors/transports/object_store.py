"""Weight transport through the Ray object store: buckets are objects, zero-copy on one node, pulled by
every other.

    learner rank 0   publish ─► ray.put(bucket) × n ─► WeightVersion(manifest, references) worker
    ReceiveBuffer.fetch: get all buckets ─► verify checksums ─► one file in memory ─► engine loads the path

The engine's process is not a Ray worker, so a path in memory is its cheapest last hop. Transports that
reach some workers only keep this one behind them: rank 0's actor puts a version there when a worker asks
for its `fallback`.
"""

import asyncio
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from dynalign.configs.errors import DeadlineExceeded, PublisherGone
from dynalign.rollout.weights.version import Manifest, WeightVersion, verified

if TYPE_CHECKING:
    from dynalign.learner.learner import Learner


def publish(manifest: Manifest, buckets: Sequence[np.ndarray]) -> WeightVersion:
    """The version can be fetched when this returns. The caller's process owns the objects and keeps the
    references alive."""
    handles = tuple(ray.put(bucket) for bucket in buckets)
    return WeightVersion(manifest.lineage, manifest.step, manifest.pack(), handles, manifest.size_bytes)


class StorePublisher:
    """In a learner rank's process. Rank 0's buckets stay, since the object store copies them."""

    def __init__(self) -> None:
        import torch  # workers read this module too, and may have no torch

        from dynalign.learner.weights import Staging

        self._staging = Staging(torch.device("cpu"))

    def publish(self, learner: "Learner", lineage: int) -> WeightVersion | None:
        """The version; None on the other ranks. Collective."""
        made = learner.weights(lineage, self._staging)
        return None if made is None else publish(*made)


async def fallback(publisher: Any, version: WeightVersion, deadline_s: float) -> WeightVersion:
    """The same version in the object store, which `publisher`, learner rank 0's actor, has put there when
    this returns.

    Raises DeadlineExceeded, or PublisherGone where a later version has taken its place."""
    try:
        async with asyncio.timeout(deadline_s):
            stored: WeightVersion | None = await publisher.fallback.remote(version.step)
    except TimeoutError as error:
        raise DeadlineExceeded(f"weight version {version.label} in the object store", deadline_s) from error
    except ray.exceptions.RayActorError as error:
        raise PublisherGone(f"the publisher of weight version {version.label} has died: {error}") from error
    if stored is None:
        raise PublisherGone(f"weight version {version.label} has a successor by now")
    return stored


class ReceiveBuffer:
    """Where a worker's versions arrive, one after the other: a file without a name, in memory that stays,
    since fresh pages cost twice the copy. It is gone with its process, however that ends."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("dynalign-weights")
        self._mapped: mmap.mmap | None = None

    async def fetch(self, version: WeightVersion, deadline_s: float) -> Path:
        """The version's bytes in one file, verified, until the next one is fetched. Nobody may read the one
        before any more.

        Raises DeadlineExceeded, PublisherGone, or WeightsError when the bytes are not those of the manifest.
        """
        try:
            async with asyncio.timeout(deadline_s):
                buckets = await asyncio.gather(*version.handles)  # type: ignore[call-overload]
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"weight version {version.label} from the object store", deadline_s
            ) from error
        except ray.exceptions.RayError as error:
            raise PublisherGone(
                f"weight version {version.label} is no longer in the object store: {error}"
            ) from error
        await asyncio.to_thread(self._write, Manifest.unpack(version.manifest), buckets)
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")  # as the engine's process opens it

    def _write(self, manifest: Manifest, buckets: Sequence[np.ndarray]) -> None:
        room = max(1, manifest.size_bytes)  # there is no mapping of nothing
        if self._mapped is None or len(self._mapped) != room:
            os.ftruncate(self._descriptor, room)
            self._mapped = mmap.mmap(self._descriptor, room)
        landed = np.frombuffer(self._mapped, np.uint8)
        start = 0
        for bucket in verified(manifest, [memoryview(bucket) for bucket in buckets]):
            arrived = np.frombuffer(bucket, np.uint8)
            landed[start : start + arrived.size] = arrived
            start += arrived.size
