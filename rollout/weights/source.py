"""Where an engine finds a weight version: plain values, which cross processes as they are."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BroadcastMember:
    """One engine's place in the broadcast of version `label`: where the root's store is, the members' group, the first of the engine's
    ranks in it. deadline_s: of each wait."""

    address: str
    port: int
    label: str
    group: str
    first_rank: int
    world_size: int
    deadline_s: float


@dataclass(frozen=True)
class MemoryHandle:
    """One bucket in the memory of a GPU, as another process opens it: the GPU's UUID (processes number GPUs as they like), the bucket's
    size, and the fields of torch's own handle."""

    gpu: str
    size_bytes: int
    storage_handle: bytes
    storage_size_bytes: int
    storage_offset_bytes: int
    counter_handle: bytes
    counter_offset: int
    event_handle: bytes
    event_sync_required: bool


Source = Path | BroadcastMember | tuple[MemoryHandle, ...]
"""A file with all buckets in order, a broadcast, or the learner's memory on the engine's own GPU."""


def described(source: Source) -> dict[str, Any]:
    """A source as a dictionary, for the engine's process."""
    if isinstance(source, Path):
        return {"file": str(source)}
    if isinstance(source, BroadcastMember):
        return {"broadcast": asdict(source)}
    return {"memory": [asdict(handle) for handle in source]}
