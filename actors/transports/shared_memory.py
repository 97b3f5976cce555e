"""Transport on one host: the learner writes a version into memory that the engine's process maps.

    learner rank 0   publish ─► writes a file in memory that nobody reads ─► WeightVersion(manifest, its path)
    worker           `reading`: locks the file against writing ─► checksums ─► the engine loads it ─► unlocks

Two files alternate, so the newest version and the one before can be read. If a file is still being read when
it should be written, its readers keep it, and the learner creates another one: the learner never waits, and
no reader sees bytes of two versions. The locks are the kernel's (`flock`), which releases them when the
holding process ends. Workers on other hosts request the version in the object store.
"""

import asyncio
import fcntl
import mmap
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynalign.actors.transports import object_store
from dynalign.actors.transports.base import Buckets, FallbackActor, Store, VersionSource
from dynalign.configs.errors import TransferFailed, WeightsError
from dynalign.rollout.weights.version import Manifest, WeightVersion, verified

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FileOffer:
    """Where a version lies in a host's memory; `WeightVersion.offer` of this transport.

    Example: ``FileOffer("/proc/4711/fd/12", "0c7b…-e1pid:[4026531836]", <learner rank 0>)``
    """

    path: str
    """The file with the bytes of all buckets in order; the path is valid for processes of `host` only."""
    host: str
    """Boot id and process namespace of the learner (`_host`)."""
    publisher: FallbackActor
    """Learner rank 0, which puts the version into the object store on request."""

    @property
    def within_reach(self) -> bool:
        """Whether this process can open `path`."""
        return self.host == _host()


class SharedMemoryPublisher:
    """Implements `Publisher`."""

    def __init__(self, publisher: FallbackActor, store: Store = object_store.publish) -> None:
        """publisher: the actor in whose process this object is. store: how a fallback is published."""
        self._publisher = publisher
        self._store = store
        self._files: list[_File] = []
        self._newest: _File | None = None
        self._stored = False

    def publish(self, learner: VersionSource, lineage: int) -> WeightVersion | None:
        """Write the version into a file; after the first `fallback`, put it into the object store as well."""
        file = self._unread()
        file.made = None
        try:
            made = learner.weights(lineage, file.staging)
        finally:
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)
        if made is None:
            return None
        file.made = made
        self._newest = file
        manifest = made[0]
        offer = FileOffer(f"/proc/{os.getpid()}/fd/{file.descriptor}", _host(), self._publisher)
        if self._stored:
            return replace(self._store(*made), offer=offer)
        return WeightVersion(lineage, manifest.step, manifest.pack(), (), manifest.size_bytes, offer)

    def fallback(self, learner: VersionSource, version: WeightVersion) -> WeightVersion | None:
        """Put the version into the object store, and all later ones too; None if its file has been
        overwritten.
        """
        for file in self._files:
            if file.made is None:
                continue
            manifest = file.made[0]
            if (manifest.lineage, manifest.step) == (version.lineage, version.step):
                self._stored = True
                return replace(self._store(*file.made), offer=version.offer)
        return None

    def _unread(self) -> "_File":
        """Return a file without readers, locked for writing. It never is that of the newest version."""
        for file in self._files:
            if file is not self._newest and file.locked():
                return file
        self._files.append(_File())
        self._files[-1].locked()
        return self._files[-1]


class _File:
    """All buckets of a version, one after the other, in memory that other processes can map.

    Its pages are reused, because new ones cost twice as much as the copy. `made` is the version in it; None
    while it is written.
    """

    def __init__(self) -> None:
        import torch  # workers import this module too, and may have no torch

        from dynalign.learner.weights import Staging

        self.descriptor = os.memfd_create("dynalign-weights")
        self.staging = Staging(torch.device("cpu"), self._bucket)
        self.made: tuple[Manifest, Buckets] | None = None

    def locked(self) -> bool:
        """Try to lock the file for writing; return whether that succeeded, which it does if nobody reads."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _bucket(self, start_bytes: int, size_bytes: int) -> "Tensor":
        import torch

        end_bytes = start_bytes + size_bytes
        page_bytes = start_bytes // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self.descriptor, end_bytes)  # pages that are never written take no memory
        mapped = mmap.mmap(self.descriptor, end_bytes - page_bytes, offset=page_bytes)
        return torch.frombuffer(mapped, dtype=torch.uint8, count=size_bytes, offset=start_bytes - page_bytes)


@asynccontextmanager
async def reading(offer: FileOffer, version: WeightVersion) -> AsyncIterator[Path]:
    """Yield the version's file, verified, as a path that the engine's process can open; it is not written in
    this context.

    Raises TransferFailed if the file cannot be read here, or if a later version has overwritten it.
    """
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
    """Lock the file for reading and verify its bytes; the lock ends when the descriptor is closed."""
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
    """Return an id of this boot and this process namespace: a path under /proc is valid only within both."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
