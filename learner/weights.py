"""Makes a weight version from live tensors: each is cast and copied once, directly into the bytes that
travel.

A `Staging` keeps its buckets, and the next version overwrites them: on a GPU, so that other processes can go
on reading at the same addresses; in host memory, because new pages cost three times as much as the copy.
Without a staging, every version has its own buckets.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynalign.configs.errors import WeightsError
from dynalign.rollout.weights.version import (
    AdapterEntry,
    BucketEntry,
    Manifest,
    TensorEntry,
    checksum,
    device_checksum,
)

Bytes = NDArray[np.uint8]
"""The bytes of one bucket in host memory, shape [size in bytes]."""

ALIGNMENT_BYTES = 64
"""Every tensor starts at a multiple of it: the size of the widest vector register, and aligned for a view as
any dtype."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""Name in the settings and in a manifest → torch's dtype."""


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Staging:
    """The buckets of the newest version on a device, allocated once.

    `kept` are the allocated buckets, uint8; `manifest` describes the version that `stage_version` wrote last.
    """

    def __init__(self, device: torch.device, allocate: Callable[[int, int], Tensor] | None = None) -> None:
        """Allocate nothing yet.

        device: where the buckets lie.
        allocate: returns a new bucket, given the bytes in all buckets before it and its own size in bytes;
        None allocates plain memory of the device.
        """
        self.device = device
        self.kept: list[Tensor] = []
        self.manifest = Manifest(0, 0, (), ())
        self._allocate = allocate or (
            lambda _, size_bytes: torch.empty(size_bytes, dtype=torch.uint8, device=device)
        )

    def bucket(self, index: int, start_bytes: int, size_bytes: int) -> Tensor:
        """Return bucket `index` with its present content, or a new one.

        start_bytes: the bytes in all buckets before it.

        Raises WeightsError if the bucket has another size than before: all versions of a model have the same
        layout.
        """
        if index == len(self.kept):
            self.kept.append(self._allocate(start_bytes, size_bytes))
        if self.kept[index].numel() != size_bytes:
            before = self.kept[index].numel()
            raise WeightsError(
                f"bucket {index} has {size_bytes} bytes, {before} before: the model's tensors have changed"
            )
        return self.kept[index]

    @property
    def buckets(self) -> list[Tensor]:
        """The version's buckets, each cut to the size that the manifest gives."""
        return [
            kept[: entry.size_bytes] for kept, entry in zip(self.kept, self.manifest.buckets, strict=True)
        ]

    def on_host(self) -> tuple[Manifest, list[Bytes]]:
        """Return the same version with its bytes in host memory, and with both checksums in its manifest."""
        copies = [bucket.cpu().numpy() for bucket in self.buckets]
        described = tuple(
            replace(entry, checksum=checksum(copy.data))
            for entry, copy in zip(self.manifest.buckets, copies, strict=True)
        )
        return replace(self.manifest, buckets=described), copies


class _Buckets:
    """Fills buffers one after the other; a tensor larger than a bucket gets a bucket of its own.

    `closed` holds the full buckets, each with the number of bytes used.
    """

    def __init__(self, bucket_bytes: int, staging: Staging | None) -> None:
        self._bucket_bytes = bucket_bytes
        self._staging = staging
        self._open: Tensor | None = None
        self._used_bytes = 0
        self.closed: list[tuple[Tensor, int]] = []

    def reserve(self, size_bytes: int) -> tuple[int, int, Tensor]:
        """Reserve `size_bytes` bytes: return the bucket's number, the offset in it, and a view of these
        bytes.
        """
        if self._open is None or self._used_bytes + size_bytes > len(self._open):
            self.close()
            self._open = self._allocated(max(self._bucket_bytes, _aligned(size_bytes)))
        offset = self._used_bytes
        self._used_bytes = _aligned(offset + size_bytes)
        self._open[offset + size_bytes : self._used_bytes] = 0
        return len(self.closed), offset, self._open[offset : offset + size_bytes]

    def _allocated(self, size_bytes: int) -> Tensor:
        if self._staging is None:
            return torch.empty(size_bytes, dtype=torch.uint8)
        start_bytes = sum(used_bytes for _, used_bytes in self.closed)
        return self._staging.bucket(len(self.closed), start_bytes, size_bytes)

    def close(self) -> None:
        """End the bucket that is being filled."""
        if self._open is not None:
            self.closed.append((self._open, self._used_bytes))
        self._open = None
        self._used_bytes = 0


def make_version(
    tensors: Iterable[tuple[str, Tensor]],
    lineage: int,
    step: int,
    dtype: str,
    bucket_bytes: int,
    adapter: AdapterEntry | None = None,
    staging: Staging | None = None,
) -> tuple[Manifest, list[Bytes]]:
    """Return the manifest of version (lineage, step) and its buckets in host memory.

    Gaps between tensors are zero, so that equal tensors have equal checksums.

    tensors: name and value. Each value is read once, while the iterable yields it, and may lie on any device.
    dtype: "bfloat16" or "float32", to which every tensor is cast.
    bucket_bytes: size of a bucket, unless one tensor is larger.
    adapter: how the tensors are LoRA factors; None if they are the model's full weights.
    staging: keeps the buckets, in host memory. The returned ones are views of it, and the version before is
    overwritten.
    """
    entries, buckets = _filled(tensors, dtype, _Buckets(bucket_bytes, staging))
    arrays = [whole.numpy()[:used_bytes] for whole, used_bytes in buckets]
    described = tuple(BucketEntry(array.nbytes, checksum(array.data)) for array in arrays)
    return Manifest(lineage, step, entries, described, adapter), arrays


def stage_version(
    staging: Staging,
    tensors: Iterable[tuple[str, Tensor]],
    lineage: int,
    step: int,
    dtype: str,
    bucket_bytes: int,
) -> Manifest:
    """Write version (lineage, step) into `staging`, on its device, over the version before; return the
    manifest.

    The arguments are those of `make_version`. Checksums are computed on the device, so when this returns, the
    writes have completed and every stream sees them.
    """
    entries, buckets = _filled(tensors, dtype, _Buckets(bucket_bytes, staging))
    sums = [device_checksum(whole[:used_bytes]) for whole, used_bytes in buckets]
    described = tuple(
        BucketEntry(used_bytes, device_checksum=sum_)
        for (_, used_bytes), sum_ in zip(buckets, sums, strict=True)
    )
    staging.manifest = Manifest(lineage, step, entries, described)
    return staging.manifest


@torch.no_grad()
def _filled(
    tensors: Iterable[tuple[str, Tensor]], dtype: str, buckets: _Buckets
) -> tuple[tuple[TensorEntry, ...], list[tuple[Tensor, int]]]:
    entries: list[TensorEntry] = []
    for name, tensor in tensors:
        wanted = DTYPES[dtype]
        size_bytes = tensor.numel() * wanted.itemsize
        bucket, offset, target = buckets.reserve(size_bytes)
        target.view(wanted).view(tensor.shape).copy_(tensor)
        entries.append(TensorEntry(name, tuple(tensor.shape), dtype, bucket, offset, size_bytes))
    buckets.close()
    return tuple(entries), buckets.closed


def read_version(manifest: Manifest, buckets: list[Bytes]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of each tensor of a version; the values are views of its buckets."""
    for entry in manifest.tensors:
        data = buckets[entry.bucket][entry.offset_bytes : entry.offset_bytes + entry.size_bytes]
        yield entry.name, torch.from_numpy(data).view(DTYPES[entry.dtype]).view(entry.shape)
