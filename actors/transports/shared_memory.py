"""Weight transport on one host: the learner writes a version where the engine's process maps it.

    learner rank 0   publish ─► a file without a name that nobody reads ─► WeightVersion(manifest, its path)
    worker           `reading`: locked against the next writer ─► checksums ─► engine loads the path ─►
    unlocked

Two files take turns, so that the newest version and the one before are there. A file that is still being
read when its turn comes is left to its readers and a third one joins: the learner waits for nobody, and
nobody reads bytes of two versions. The locks are the kernel's (`flock`): they end with the process that
holds them. Workers on other hosts ask for the version in the object store.
"""

import asyncio
import fcntl
import mmap
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalign.actors.transports import object_store as transport_object_store
from dynalign.configs.errors import TransferFailed, WeightsError
from dynalign.rollout.weights.version import Manifest, WeightVersion, verified

if TYPE_CHECKING:
    from torch import Tensor

    from dynalign.learner.learner import Learner


@dataclass(frozen=True)
class FileOffer:
    """Where the version's bytes are, all buckets in order: a path that holds among the processes of `host`.
    publisher: learner rank 0's actor, for `fallback`."""

    path: str
    host: str
    publisher: Any

    @property
    def within_reach(self) -> bool:
        return self.host == _host()


class SharedMemoryPublisher:
    """In a learner rank's process. publisher: see `FileOffer`."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._files: list[_File] = []
        self._newest: _File | None = None
        self._stored = False

    def publish(self, learner: "Learner", lineage: int) -> WeightVersion | None:
        """The version in a file, and in the object store if a worker has asked for one there; None on the
        other ranks. Collective."""
        file = self._unread()
        file.made = None
        try:
            made = learner.weights(lineage, file.staging)
        finally:
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)
        if made is None:
            return None
        self._newest, file.made = file, made
        manifest = made[0]
        offer = FileOffer(f"/proc/{os.getpid()}/fd/{file.descriptor}", _host(), self._publisher)
        if self._stored:
            return replace(transport_object_store.publish(*made), offer=offer)
        return WeightVersion(lineage, manifest.step, manifest.pack(), (), manifest.size_bytes, offer)

    def fallback(self, learner: "Learner", version: WeightVersion) -> WeightVersion | None:
        """The same version in the object store as well, as all later ones will be; None if it is no longer
        here."""
        for file in self._files:
            if file.made is not None and (file.made[0].lineage, file.made[0].step) == (
                version.lineage,
                version.step,
            ):
                self._stored = True
                return replace(transport_object_store.publish(*file.made), offer=version.offer)
        return None

    def _unread(self) -> "_File":
        """A file to write, locked; its readers are those of an older version, and gone."""
        for file in self._files:
            if file is not self._newest and file.locked():
                return file
        self._files.append(_File())
        self._files[-1].locked()
        return self._files[-1]


class _File:
    """Buckets one behind the other in memory that other processes can map; its pages stay, since fresh ones
    cost twice the copy.

    made: the version in it."""

    def __init__(self) -> None:
        import torch  # workers read this module too, and may have no torch

        from dynalign.learner.weights import Staging

        self.descriptor = os.memfd_create("dynalign-weights")
        self.staging = Staging(torch.device("cpu"), self._bucket)
        self.made: tuple[Manifest, Sequence[np.ndarray]] | None = None

    def locked(self) -> bool:
        """Whether nobody reads, and nobody can until this process unlocks it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _bucket(self, start_bytes: int, size_bytes: int) -> "Tensor":
        import torch

        end_bytes, page_bytes = (
            start_bytes + size_bytes,
            start_bytes // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY,
        )
        os.ftruncate(self.descriptor, end_bytes)  # what no version fills takes no memory
        mapped = mmap.mmap(self.descriptor, end_bytes - page_bytes, offset=page_bytes)
        return torch.frombuffer(mapped, dtype=torch.uint8, count=size_bytes, offset=start_bytes - page_bytes)


@asynccontextmanager
async def reading(offer: FileOffer, version: WeightVersion) -> AsyncIterator[Path]:
    """The version's file, verified, as the engine's process opens it; nobody writes there before the
    context ends.

    Raises TransferFailed: it cannot be read here, or has a successor by now."""
    try:
        descriptor = os.open(offer.path, os.O_RDONLY)
    except OSError as error:
        raise TransferFailed(f"version {version.label} in the learner's memory: {error}") from error
    try:
        await asyncio.to_thread(_verify, descriptor, version)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _verify(descriptor: int, version: WeightVersion) -> None:
    """Locks the file for reading; the lock ends with the descriptor."""
    manifest = Manifest.unpack(version.manifest)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        whole = np.memmap(f"/proc/self/fd/{descriptor}", np.uint8, "r", shape=(manifest.size_bytes,))
        ends = accumulate(bucket.size_bytes for bucket in manifest.buckets)
        buckets = [
            whole[end - bucket.size_bytes : end].data
            for bucket, end in zip(manifest.buckets, ends, strict=True)
        ]
        for _ in verified(manifest, buckets):
            pass
    except (OSError, ValueError, WeightsError) as error:
        raise TransferFailed(f"version {version.label} in the learner's memory: {error}") from error


def _host() -> str:
    """Where a process number, and so a path under /proc, means the same process: this boot of this kernel,
    and this container."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
