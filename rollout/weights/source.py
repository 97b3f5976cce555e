"""Where an engine gets a weight version from, as plain values that cross processes unchanged."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BroadcastMember:
    """One engine as a member of the broadcast of one version (`broadcast.py`; several GPUs only).

    Example, the second of two engines with one GPU each:

        BroadcastMember("10.0.0.4", 43117, "1.12", "group-3", first_rank=2, world_size=3, deadline_s=15.0)
    """

    address: str
    """Host of the store at which the members meet; the learner serves it."""
    port: int
    """Its TCP port."""
    label: str
    """The version's name, `<lineage>.<step>`."""
    group: str
    """Name of the members' process group; the same members keep it from version to version."""
    first_rank: int
    """Rank of the engine's first process in the group; the learner is rank 0."""
    world_size: int
    """Ranks in the group, the learner included."""
    deadline_s: float
    """Seconds that each wait may take."""


@dataclass(frozen=True)
class MemoryHandle:
    """One bucket in the memory of a GPU, as another process opens it by CUDA IPC.

    All fields from `storage_handle` on are those of torch's own handle (`torch.multiprocessing.reductions`).

    Example, a bucket of 256 MiB:

        MemoryHandle("8f1c2f9e-…", 268435456, b"\\x01…", 268435456, 0, b"/torch_…", 0, b"\\x02…", True)
    """

    gpu: str
    """UUID of the GPU; its number may differ from process to process."""
    size_bytes: int
    """Size of the bucket."""
    storage_handle: bytes
    """CUDA's handle of the allocation that holds the bucket."""
    storage_size_bytes: int
    """Size of that allocation's storage."""
    storage_offset_bytes: int
    """Where in the allocation the storage begins."""
    counter_handle: bytes
    """Name of the file in shared memory that counts the readers."""
    counter_offset: int
    """Index of this bucket's counter in that file."""
    event_handle: bytes
    """CUDA's handle of the event after which the bytes are written."""
    event_sync_required: bool
    """Whether a reader has to wait for that event."""


Source = Path | BroadcastMember | tuple[MemoryHandle, ...]
"""A file with all buckets in order, a broadcast, or the learner's buckets on the engine's own GPU."""


def described(source: Source) -> dict[str, Any]:
    """A source as plain values for the engine's process, under one key: `file`, `broadcast` or `memory`."""
    if isinstance(source, Path):
        return {"file": str(source)}
    if isinstance(source, BroadcastMember):
        return {"broadcast": asdict(source)}
    return {"memory": [asdict(handle) for handle in source]}
