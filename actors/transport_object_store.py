"""Weight transport through the Ray object store: buckets are objects, zero-copy on one node, pulled by every other.

    learner rank 0   publish ─► ray.put(bucket) × n ─► WeightVersion(manifest, references)
    worker           fetch: get all buckets ─► verify checksums ─► one file in shared memory ─► engine loads the path

The engine's process is not a Ray worker, so a path in shared memory is its cheapest last hop.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray

from configs.errors import DeadlineExceeded, PublisherGone
from rollout.weight_version import Manifest, WeightVersion, verified

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the memory-backed folder of Linux
_ROOM = 1.1  # free space wanted, as a multiple of the version: the folder is shared with the object store


def publish(manifest: Manifest, buckets: Sequence[np.ndarray]) -> WeightVersion:
    """The version can be fetched when this returns. The caller's process owns the objects and keeps the references alive."""
    handles = tuple(ray.put(bucket) for bucket in buckets)
    return WeightVersion(manifest.lineage, manifest.step, manifest.pack(), handles, manifest.size_bytes)


async def fetch(version: WeightVersion, deadline_s: float) -> Path:
    """The version's bytes in one file, verified; the caller removes the file.

    Raises DeadlineExceeded, PublisherGone, or WeightsError when the bytes are not those of the manifest.
    """
    try:
        async with asyncio.timeout(deadline_s):
            buckets = await asyncio.gather(*version.handles)  # type: ignore[call-overload]
    except TimeoutError as error:
        raise DeadlineExceeded(f"weight version {version.label} from the object store", deadline_s) from error
    except ray.exceptions.RayError as error:
        raise PublisherGone(f"weight version {version.label} is no longer in the object store: {error}") from error
    return await asyncio.to_thread(_write, Manifest.unpack(version.manifest), buckets)


def _write(manifest: Manifest, buckets: Sequence[np.ndarray]) -> Path:
    folder = _SHARED_MEMORY
    if not folder.is_dir() or shutil.disk_usage(folder).free < _ROOM * manifest.size_bytes:
        folder = Path(tempfile.gettempdir())
    descriptor, name = tempfile.mkstemp(prefix=f"dynalign-{manifest.lineage}.{manifest.step}-", dir=folder)
    file, whole = Path(name), False
    try:
        with open(descriptor, "wb") as stream:
            for bucket in verified(manifest, [memoryview(bucket) for bucket in buckets]):
                stream.write(bucket)
        whole = True
    finally:
        if not whole:
            file.unlink()
    return file
