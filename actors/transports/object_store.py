"""Transport through the Ray object store: each bucket is an object.

It works on every device and between all nodes.

    learner rank 0   publish ─► ray.put(bucket) × n ─► WeightVersion(manifest, references)
    worker           ReceiveBuffer.fetch ─► gets all buckets ─► verifies checksums ─► one file in memory
                     ─► the engine loads the file

Workers on the learner's node read the objects without a copy; other nodes pull them. The engine's process is
no Ray worker, so it gets a file in memory. Transports that do not reach every worker fall back to this one: a
worker calls `fallback`, and rank 0's actor puts the version here.
"""

import asyncio
import mmap
import os
from pathlib import Path

import numpy as np
import ray

from dynalign.actors.transports.base import Buckets, FallbackActor, VersionSource
from dynalign.configs.errors import DeadlineExceeded, PublisherGone
from dynalign.rollout.weights.version import Manifest, WeightVersion, verified


def publish(manifest: Manifest, buckets: Buckets) -> WeightVersion:
    """Put a version into the object store; it can be fetched when this returns.

    The calling process owns the objects: they live as long as it keeps the returned references.
    """
    handles = tuple(ray.put(bucket) for bucket in buckets)
    return WeightVersion(manifest.lineage, manifest.step, manifest.pack(), handles, manifest.size_bytes)


class StorePublisher:
    """Implements `Publisher`.

    Its staging is reused for each version, since the object store copies the buckets.
    """

    def __init__(self) -> None:
        import torch  # workers import this module too, and may have no torch

        from dynalign.learner.weights import Staging

        self._staging = Staging(torch.device("cpu"))

    def publish(self, learner: VersionSource, lineage: int) -> WeightVersion | None:
        """Put the version into the object store."""
        made = learner.weights(lineage, self._staging)
        return None if made is None else publish(*made)

    def fallback(self, learner: VersionSource, version: WeightVersion) -> WeightVersion | None:
        """Return `version`: it is in the object store already."""
        return version


async def fallback(publisher: FallbackActor, version: WeightVersion, deadline_s: float) -> WeightVersion:
    """Let learner rank 0's actor put `version` into the object store, and return it with its references.

    Raises DeadlineExceeded after `deadline_s` seconds, and PublisherGone if the actor has died, or a later
    version has replaced this one.
    """
    try:
        async with asyncio.timeout(deadline_s):
            stored = await publisher.fallback.remote(version.step)
    except TimeoutError as error:
        raise DeadlineExceeded(f"weight version {version.label} in the object store", deadline_s) from error
    except ray.exceptions.RayActorError as error:
        raise PublisherGone(f"the publisher of weight version {version.label} has died: {error}") from error
    if stored is None:
        raise PublisherGone(f"weight version {version.label} has a successor by now")
    return stored


class ReceiveBuffer:
    """A file in memory into which a worker copies each version, over the one before.

    The memory is reused, because new pages cost twice as much as the copy. The file has no name in any
    folder, so the kernel frees it when the process ends.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("dynalign-weights")
        self._mapped: mmap.mmap | None = None

    async def fetch(self, version: WeightVersion, deadline_s: float) -> Path:
        """Copy the version's bytes into the file, verified, and return its path. The next call overwrites it.

        Nothing may still read the version before.

        Raises DeadlineExceeded after `deadline_s` seconds, PublisherGone if the objects are lost, and
        WeightsError if the bytes do not match the manifest.
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
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")  # a path that the engine's process can open

    def _write(self, manifest: Manifest, buckets: Buckets) -> None:
        size_bytes = max(1, manifest.size_bytes)  # a mapping cannot be empty
        if self._mapped is None or len(self._mapped) != size_bytes:
            os.ftruncate(self._descriptor, size_bytes)
            self._mapped = mmap.mmap(self._descriptor, size_bytes)
        target = np.frombuffer(self._mapped, np.uint8)
        start = 0
        for bucket in verified(manifest, [bucket.data for bucket in buckets]):
            arrived = np.frombuffer(bucket, np.uint8)
            target[start : start + arrived.size] = arrived
            start += arrived.size
