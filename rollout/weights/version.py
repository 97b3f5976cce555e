"""A weight version as data: what the learner publishes and an engine loads.

A version is a list of buckets (flat bytes) and a manifest that says which tensor lies where. The manifest travels as msgpack,
the buckets by whatever transport was chosen; nothing is unpickled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import msgpack
import xxhash

from dynalign.configs.errors import WeightsError
from dynalign.configs.schema import RunSettings

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 3
_SUMMED_WORDS = 1 << 22  # 32 MiB at one time, whatever a bucket's size
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: its Hugging Face name, shape, dtype ("bfloat16", "float32"), bucket and byte offset in that bucket."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bucket: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """One bucket: its size, the xxh3 checksum of its bytes where they were in host memory, and `device_checksum` where they were not."""

    size_bytes: int
    checksum: str = ""
    device_checksum: str = ""


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """The version's tensors are LoRA factors under peft's names: alpha / rank times B A is added to each layer called in `targets`."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


def travelling_adapter(run: RunSettings) -> AdapterEntry | None:
    """What the engines of this run add to the weights as released; None: whole weights travel."""
    lora = run.learner.lora
    if run.weights.content == "full" or lora is None:
        return None
    return AdapterEntry(lora.rank, lora.alpha, lora.targets)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a version but its bytes. (lineage, step) names it; step 0 is the initial policy.

    adapter: None where the tensors are the model's whole weights."""

    lineage: int
    step: int
    tensors: tuple[TensorEntry, ...]
    buckets: tuple[BucketEntry, ...]
    adapter: AdapterEntry | None = None

    @property
    def size_bytes(self) -> int:
        return sum(bucket.size_bytes for bucket in self.buckets)

    def file_offset_bytes(self, tensor: TensorEntry) -> int:
        """Offset of a tensor in the file that concatenates all buckets."""
        return sum(bucket.size_bytes for bucket in self.buckets[: tensor.bucket]) + tensor.offset_bytes

    def pack(self) -> bytes:
        return bytes(msgpack.packb({"format": FORMAT} | asdict(self)))

    @staticmethod
    def unpack(packed: bytes) -> "Manifest":
        """Raises WeightsError for an unknown format or damaged bytes."""
        try:
            data = msgpack.unpackb(packed)
            if data["format"] != FORMAT:
                raise WeightsError(
                    f"weight manifest has format {data['format']!r}, this version reads {FORMAT}"
                )
            adapter = data["adapter"]
            return Manifest(
                lineage=data["lineage"],
                step=data["step"],
                tensors=tuple(
                    TensorEntry(**{**entry, "shape": tuple(entry["shape"])}) for entry in data["tensors"]
                ),
                buckets=tuple(BucketEntry(**entry) for entry in data["buckets"]),
                adapter=AdapterEntry(**{**adapter, "targets": tuple(adapter["targets"])})
                if adapter
                else None,
            )
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise WeightsError(f"weight manifest is damaged: {error}") from error


@dataclass(frozen=True)
class WeightVersion:
    """What travels: the packed manifest, and one handle per bucket (opaque here; the transport knows what it is).

    offer: a faster way than the handles, opaque too; None where there is no other."""

    lineage: int
    step: int
    manifest: bytes
    handles: tuple[object, ...]
    size_bytes: int
    offer: object = None

    @property
    def label(self) -> str:
        """The engine's name for this version, and the salt of its prefix cache."""
        return version_label(self.lineage, self.step)


def version_label(lineage: int, step: int) -> str:
    return f"{lineage}.{step}"


def label_step(label: str) -> int:
    """The step in a label made by `version_label`."""
    return int(label.rpartition(".")[2])


def checksum(data: Buffer) -> str:
    return xxhash.xxh3_64(data).hexdigest()  # at memory's speed; xxh64 takes twice as long


def device_checksum(bucket: "Tensor") -> str:
    """Of flat bytes wherever they are, computed there: the sum of their 64-bit words, and of word times position, both modulo 2^64.

    The bucket is a multiple of 8 bytes. A flipped bit always changes the first sum; bytes that lie in a wrong place, the second."""
    import torch  # this module is imported where no tensor ever is

    words = bucket.view(torch.int64)
    plain, weighted = torch.zeros((2, 1), dtype=torch.int64, device=bucket.device)
    for start in range(0, len(words), _SUMMED_WORDS):
        part = words[start : start + _SUMMED_WORDS]
        plain += part.sum()
        weighted += (part * torch.arange(start + 1, start + 1 + len(part), device=bucket.device)).sum()
    return f"{int(plain) % 2**64:016x}{int(weighted) % 2**64:016x}"


def verified(manifest: Manifest, buckets: Sequence[Buffer]) -> Iterator[Buffer]:
    """The buckets in order, each checked. Raises WeightsError on a wrong count, size or checksum."""
    if len(buckets) != len(manifest.buckets):
        raise WeightsError(
            f"version {manifest.step}: {len(buckets)} buckets arrived, the manifest lists {len(manifest.buckets)}"
        )
    for index, (entry, data) in enumerate(zip(manifest.buckets, buckets, strict=True)):
        if memoryview(data).nbytes != entry.size_bytes or checksum(data) != entry.checksum:
            raise WeightsError(f"version {manifest.step}: bucket {index} does not match its checksum")
        yield data
