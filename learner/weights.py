"""A weight version from live tensors: cast and copied once, straight into the bytes that travel."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollout.weight_version import AdapterEntry, BucketEntry, Manifest, TensorEntry, checksum

Bytes = NDArray[np.uint8]

ALIGNMENT_BYTES = 64
"""Every tensor starts at a multiple of it: the widest vector register, and a view as any dtype is allowed there."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class _Buckets:
    """Buffers filled one after the other; a tensor larger than a bucket gets one of its own."""

    def __init__(self, bucket_bytes: int) -> None:
        self._bucket_bytes = bucket_bytes
        self._open: Bytes | None = None
        self._used_bytes = 0
        self.closed: list[Bytes] = []

    def room(self, size_bytes: int) -> tuple[int, int, Bytes]:
        """(bucket number, offset in it, its bytes there) for `size_bytes` more bytes."""
        if self._open is None or self._used_bytes + size_bytes > len(self._open):
            self.close()
            self._open = np.zeros(max(self._bucket_bytes, _aligned(size_bytes)), np.uint8)
        offset = self._used_bytes
        self._used_bytes = _aligned(offset + size_bytes)
        return len(self.closed), offset, self._open[offset : offset + size_bytes]

    def close(self) -> None:
        if self._open is not None:
            self.closed.append(self._open[: self._used_bytes])
        self._open, self._used_bytes = None, 0


@torch.no_grad()
def make_version(
    tensors: Iterable[tuple[str, Tensor]], lineage: int, step: int, dtype: str, bucket_bytes: int, adapter: AdapterEntry | None = None
) -> tuple[Manifest, list[Bytes]]:
    """Version (lineage, step) of `tensors`, floating-point ones cast to `dtype` ("bfloat16", "float32"), and its buckets.

    Each tensor is read once, while the iterable yields it, and may live on any device. Gaps between tensors are zero, so that equal
    tensors make equal checksums.
    """
    buckets = _Buckets(bucket_bytes)
    entries: list[TensorEntry] = []
    for name, tensor in tensors:
        wanted = DTYPES[dtype]
        size_bytes = tensor.numel() * wanted.itemsize
        bucket, offset, target = buckets.room(size_bytes)
        torch.from_numpy(target).view(wanted).view(tensor.shape).copy_(tensor)
        entries.append(TensorEntry(name, tuple(tensor.shape), dtype, bucket, offset, size_bytes))
    buckets.close()
    described = tuple(BucketEntry(bucket.nbytes, checksum(bucket.data)) for bucket in buckets.closed)
    return Manifest(lineage, step, tuple(entries), described, adapter), buckets.closed


def read_version(manifest: Manifest, buckets: list[Bytes]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a version, as views of its buckets."""
    for entry in manifest.tensors:
        data = buckets[entry.bucket][entry.offset_bytes : entry.offset_bytes + entry.size_bytes]
        yield entry.name, torch.from_numpy(data).view(DTYPES[entry.dtype]).view(entry.shape)
