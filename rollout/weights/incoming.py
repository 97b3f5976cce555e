"""A version on its way into an engine's process, by one of three ways.

    file        mapped from shared memory; its checksums were verified when it was written
    memory      the learner's own, on the same GPU; verified before the first write and again after the last
    broadcast   bucket after bucket into memory of this process; each is verified when it has arrived

`prepare` neither reads nor writes a weight of the model: when it raises, the engine is as it was. A later
error ends the engine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynalign.configs.errors import WeightsError
from dynalign.rollout.weights.broadcast import Receiver, Wire
from dynalign.rollout.weights.device_memory import opened
from dynalign.rollout.weights.source import BroadcastMember, MemoryHandle
from dynalign.rollout.weights.version import Manifest, device_checksum
from dynalign.rollout.weights.version_file import tensor_of, tensors_in


class IncomingWeights:
    """Receives versions in one of the engine's processes."""

    def __init__(
        self,
        device: torch.device,
        part: int,
        open_memory: Callable[[MemoryHandle, torch.device], Tensor] = opened,
    ) -> None:
        """part: index of this process in its engine. open_memory: opens a bucket in the learner's memory."""
        self._device = device
        self._part = part
        self._open_memory = open_memory
        self._receiver = Receiver(device)
        self._from: Path | Wire | list[Tensor] | None = None
        self._manifest: Manifest | None = None

    def prepare(self, source: dict[str, Any], manifest: bytes) -> None:
        """Does everything that can fail without harm. source: see `described`. manifest: a packed `Manifest`.

        Raises TransferFailed, WeightsError, or torch's RuntimeError."""
        self._manifest = Manifest.unpack(manifest)
        if "file" in source:
            self._from = Path(source["file"])
        elif "broadcast" in source:
            self._from = self._receiver.join(BroadcastMember(**source["broadcast"]), self._part)
        else:
            handles = [MemoryHandle(**handle) for handle in source["memory"]]
            pairs = zip(handles, self._manifest.buckets, strict=True)
            open_memory = self._open_memory
            self._from = [open_memory(handle, self._device)[: entry.size_bytes] for handle, entry in pairs]
            self._verify_all()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything. Raises WeightsError where bytes do not match the manifest."""
        manifest = self._known()
        if isinstance(self._from, Path):
            yield from tensors_in(self._from, manifest)
            return
        arrived = -1
        for entry in manifest.tensors:  # in the order of their buckets
            if entry.bucket != arrived:
                arrived = entry.bucket
                bucket = self._bucket(arrived)
            yield entry.name, tensor_of(bucket, entry, entry.offset_bytes)

    def close(self) -> None:
        """Ends the version after its last tensor. Raises WeightsError if the learner's memory has changed."""
        if isinstance(self._from, list):
            self._verify_all()
        self._from = None
        self._manifest = None

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
            cause = f"bucket {index} does not match its checksum on {self._device}"
            raise WeightsError(f"version {manifest.step}: {cause}")

    def _known(self) -> Manifest:
        if self._manifest is None:
            raise WeightsError("no version is on its way in")
        return self._manifest
