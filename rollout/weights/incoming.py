"""A version on its way into an engine's process, whichever way it comes. All forms but the file are checked on the device.

    file        mapped from shared memory; its checksums were verified when it was written
    memory      the learner's own, on the same GPU: verified before the first write, and again before the engine goes on
    broadcast   bucket after bucket into memory of this process, each verified when it has come

`prepare` reads and writes no weight of the model: whatever it raises leaves the engine as it was. What fails later ends the engine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynalign.configs.errors import WeightsError
from dynalign.rollout.weights.broadcast import Member, Wire
from dynalign.rollout.weights.device_memory import opened
from dynalign.rollout.weights.source import BroadcastMember, MemoryHandle
from dynalign.rollout.weights.version import Manifest, device_checksum
from dynalign.rollout.weights.version_file import tensor_of, tensors_in


class IncomingWeights:
    """In the engine's process; `part`: which of the engine's processes. open_memory: how a bucket of the learner's is opened."""

    def __init__(
        self,
        device: torch.device,
        part: int,
        open_memory: Callable[[MemoryHandle, torch.device], Tensor] = opened,
    ) -> None:
        self._device, self._part, self._open_memory = device, part, open_memory
        self._member = Member(device)
        self._from: Path | Wire | list[Tensor] | None = None
        self._manifest: Manifest | None = None

    def prepare(self, source: dict[str, Any], manifest: bytes) -> None:
        """Everything that can fail without harm. Raises TransferFailed, WeightsError, or torch's RuntimeError."""
        self._manifest = Manifest.unpack(manifest)
        if "file" in source:
            self._from = Path(source["file"])
        elif "broadcast" in source:
            self._from = self._member.join(BroadcastMember(**source["broadcast"]), self._part)
        else:
            handles = [MemoryHandle(**handle) for handle in source["memory"]]
            described = zip(handles, self._manifest.buckets, strict=True)
            self._from = [
                self._open_memory(handle, self._device)[: entry.size_bytes] for handle, entry in described
            ]
            self._verify_all()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything. Raises WeightsError at bytes that are not those of the manifest."""
        manifest = self._known()
        if isinstance(self._from, Path):
            yield from tensors_in(self._from, manifest)
            return
        arrived = -1
        for entry in manifest.tensors:  # in the order of their buckets
            if entry.bucket != arrived:
                arrived, bucket = entry.bucket, self._bucket(entry.bucket)
            yield entry.name, tensor_of(bucket, entry, entry.offset_bytes)

    def close(self) -> None:
        """After the last tensor has been taken in. Raises WeightsError if the learner's memory changed meanwhile."""
        if isinstance(self._from, list):
            self._verify_all()
        self._from = self._manifest = None

    def _bucket(self, index: int) -> Tensor:
        if isinstance(self._from, list):
            return self._from[index]
        if not isinstance(self._from, Wire):
            raise WeightsError("no version is on its way in")
        bucket = torch.empty(self._known().buckets[index].size_bytes, dtype=torch.uint8, device=self._device)
        self._from.broadcast(bucket)
        self._verify(index, bucket)
        return bucket

    def _verify_all(self) -> None:
        if isinstance(self._from, list):
            for index, bucket in enumerate(self._from):
                self._verify(index, bucket)

    def _verify(self, index: int, bucket: Tensor) -> None:
        manifest = self._known()
        if device_checksum(bucket) != manifest.buckets[index].device_checksum:
            raise WeightsError(
                f"version {manifest.step}: bucket {index} does not match its checksum on {self._device}"
            )

    def _known(self) -> Manifest:
        if self._manifest is None:
            raise WeightsError("no version is on its way in")
        return self._manifest
