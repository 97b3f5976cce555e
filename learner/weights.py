"""A weight version from live tensors: cast and copied once, straight into the bytes that travel.

Buckets that stay (`Staging`) are written over by the next version: on a GPU so that other processes can keep reading at the same
addresses, in host memory because fresh pages cost three times the copy. Without a staging a version has buckets of its own.
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

ALIGNMENT_BYTES = 64
"""Every tensor starts at a multiple of it: the widest vector register, and a view as any dtype is allowed there."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Staging:
    """The buckets of the newest version, on a device, allocated once.

    allocate: makes a bucket of so many bytes; it is told how many the buckets before it hold."""

    def __init__(self, device: torch.device, allocate: Callable[[int, int], Tensor] | None = None) -> None:
        self.device = device
        self.kept: list[Tensor] = []
        self.manifest = Manifest(0, 0, (), ())
        self._allocate = allocate or (
            lambda _, size_bytes: torch.empty(size_bytes, dtype=torch.uint8, device=device)
        )

    def bucket(self, index: int, start_bytes: int, size_bytes: int) -> Tensor:
        """The kept bucket, with what was in it, or a new one of this size. A model's versions are all laid out alike."""
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
        """The version's bytes, as its manifest describes them."""
        return [
            kept[: entry.size_bytes] for kept, entry in zip(self.kept, self.manifest.buckets, strict=True)
        ]

    def on_host(self) -> tuple[Manifest, list[Bytes]]:
        """The same version with its bytes in host memory, checksums of both kinds."""
        copies = [bucket.cpu().numpy() for bucket in self.buckets]
        both = zip(self.manifest.buckets, copies, strict=True)
        described = tuple(replace(entry, checksum=checksum(copy.data)) for entry, copy in both)
        return replace(self.manifest, buckets=described), copies


class _Buckets:
    """Buffers filled one after the other; a tensor larger than a bucket gets one of its own."""

    def __init__(self, bucket_bytes: int, staging: Staging | None) -> None:
        self._bucket_bytes, self._staging = bucket_bytes, staging
        self._open: Tensor | None = None
        self._used_bytes = 0
        self.closed: list[tuple[Tensor, int]] = []

    def room(self, size_bytes: int) -> tuple[int, int, Tensor]:
        """(bucket number, offset in it, its bytes there) for `size_bytes` more bytes."""
        if self._open is None or self._used_bytes + size_bytes > len(self._open):
            self.close()
            whole = max(self._bucket_bytes, _aligned(size_bytes))
            number, start = len(self.closed), sum(used_bytes for _, used_bytes in self.closed)
            self._open = (
                torch.empty(whole, dtype=torch.uint8)
                if self._staging is None
                else self._staging.bucket(number, start, whole)
            )
        offset = self._used_bytes
        self._used_bytes = _aligned(offset + size_bytes)
        self._open[offset + size_bytes : self._used_bytes] = 0
        return len(self.closed), offset, self._open[offset : offset + size_bytes]

    def close(self) -> None:
        if self._open is not None:
            self.closed.append((self._open, self._used_bytes))
        self._open, self._used_bytes = None, 0


def make_version(
    tensors: Iterable[tuple[str, Tensor]],
    lineage: int,
    step: int,
    dtype: str,
    bucket_bytes: int,
    adapter: AdapterEntry | None = None,
    staging: Staging | None = None,
) -> tuple[Manifest, list[Bytes]]:
    """Version (lineage, step) of `tensors`, floating-point ones cast to `dtype` ("bfloat16", "float32"), and its buckets.

    Each tensor is read once, while the iterable yields it, and may live on any device. Gaps between tensors are zero, so that equal
    tensors make equal checksums.

    :param staging: in host memory; the buckets are views of it, and those of the version before are no more.
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
    """The same on the staging's device, over the version that was there. What is written is there for every stream when it returns."""
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
        bucket, offset, target = buckets.room(size_bytes)
        target.view(wanted).view(tensor.shape).copy_(tensor)
        entries.append(TensorEntry(name, tuple(tensor.shape), dtype, bucket, offset, size_bytes))
    buckets.close()
    return tuple(entries), buckets.closed


def read_version(manifest: Manifest, buckets: list[Bytes]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a version, as views of its buckets."""
    for entry in manifest.tensors:
        data = buckets[entry.bucket][entry.offset_bytes : entry.offset_bytes + entry.size_bytes]
        yield entry.name, torch.from_numpy(data).view(DTYPES[entry.dtype]).view(entry.shape)
