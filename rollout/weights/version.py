"""A weight version as data: what the learner publishes and an engine loads.

A version is a list of buckets (flat bytes) and a manifest that says where each tensor is. The manifest
travels as msgpack, the buckets by the transport of the run; nothing is unpickled.
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
"""Of the packed manifest; another one is refused."""
Buffer = bytes | bytearray | memoryview
"""A bucket in host memory."""
_SUMMED_WORDS = 1 << 22  # 32 MiB at a time, whatever a bucket's size


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor of a version is.

    Example:

        TensorEntry("model.norm.weight", (576,), "bfloat16", bucket=1, offset_bytes=4096, size_bytes=1152)
    """

    name: str
    """Its name in the Hugging Face checkpoint (of an adapter: peft's)."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """"bfloat16" or "float32"."""
    bucket: int
    """Index of the bucket that holds it."""
    offset_bytes: int
    """Where in that bucket it begins."""
    size_bytes: int
    """Its size."""


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """One bucket of a version, with one checksum or both.

    Example: `BucketEntry(size_bytes=268435456, checksum="9d2f0c4be1a87731")`.
    """

    size_bytes: int
    """Its size."""
    checksum: str = ""
    """See `checksum`: 16 hexadecimal characters; empty if the bucket was never in host memory."""
    device_checksum: str = ""
    """See `device_checksum`: 32 hexadecimal characters; empty if the bucket is only read in host memory."""


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """A version whose tensors are LoRA factors A and B: alpha / rank · B·A is added to each target layer.

    Example: `AdapterEntry(rank=16, alpha=32.0, targets=("q_proj", "v_proj"))`. LoRA: arXiv 2106.09685.
    """

    rank: int
    """Rank of the factors."""
    alpha: float
    """The scale's numerator."""
    targets: tuple[str, ...]
    """Last parts of the names of the linear layers that carry an adapter."""


def travelling_adapter(run: RunSettings) -> AdapterEntry | None:
    """The adapter that the versions of this run consist of; None if they are whole weights."""
    lora = run.learner.lora
    if run.weights.content == "full" or lora is None:
        return None
    return AdapterEntry(lora.rank, lora.alpha, lora.targets)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a version but its bytes. (lineage, step) names it.

    Example, one tensor in one bucket:

        Manifest(
            lineage=1,
            step=12,
            tensors=(TensorEntry("model.norm.weight", (576,), "bfloat16", 0, 0, 1152),),
            buckets=(BucketEntry(1152, "9d2f0c4be1a87731"),),
        )
    """

    lineage: int
    """The run's history that the version belongs to."""
    step: int
    """The learner step that made it; 0 is the initial policy."""
    tensors: tuple[TensorEntry, ...]
    """All tensors, in the order of their buckets."""
    buckets: tuple[BucketEntry, ...]
    """All buckets, in order."""
    adapter: AdapterEntry | None = None
    """None if the tensors are the model's whole weights."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all buckets."""
        return sum(bucket.size_bytes for bucket in self.buckets)

    def file_offset_bytes(self, tensor: TensorEntry) -> int:
        """Offset of a tensor in the file that concatenates all buckets."""
        return sum(bucket.size_bytes for bucket in self.buckets[: tensor.bucket]) + tensor.offset_bytes

    def pack(self) -> bytes:
        """The manifest as msgpack."""
        return bytes(msgpack.packb({"format": FORMAT} | asdict(self)))

    @staticmethod
    def unpack(packed: bytes) -> "Manifest":
        """The manifest that `pack` packed. Raises WeightsError for an unknown format or damaged bytes."""
        try:
            data = msgpack.unpackb(packed)
            if data["format"] != FORMAT:
                found = data["format"]
                raise WeightsError(f"weight manifest has format {found!r}, this version reads {FORMAT}")
            adapter = data["adapter"]
            if adapter:
                adapter = AdapterEntry(**(adapter | {"targets": tuple(adapter["targets"])}))
            return Manifest(
                lineage=data["lineage"],
                step=data["step"],
                tensors=tuple(
                    TensorEntry(**(each | {"shape": tuple(each["shape"])})) for each in data["tensors"]
                ),
                buckets=tuple(BucketEntry(**each) for each in data["buckets"]),
                adapter=adapter or None,
            )
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise WeightsError(f"weight manifest is damaged: {error}") from error


@dataclass(frozen=True)
class WeightVersion:
    """A published version: the packed manifest, and how to get the bytes.

    Example, two buckets in Ray's object store:

        WeightVersion(1, 12, manifest=b"…", handles=(ObjectRef(…), ObjectRef(…)), size_bytes=538968064)
    """

    lineage: int
    """The run's history that the version belongs to."""
    step: int
    """The learner step that made it; 0 is the initial policy."""
    manifest: bytes
    """The packed `Manifest`."""
    handles: tuple[object, ...]
    """One per bucket; only the transport that made them knows what they are."""
    size_bytes: int
    """Bytes of all buckets."""
    offer: object = None
    """A faster way to the bytes, known to its transport alone; None if there is only the handles' way."""

    @property
    def label(self) -> str:
        """The engine's name for this version, and the salt of its prefix cache: `<lineage>.<step>`."""
        return version_label(self.lineage, self.step)


def version_label(lineage: int, step: int) -> str:
    """The name of a version, `<lineage>.<step>`."""
    return f"{lineage}.{step}"


def label_step(label: str) -> int:
    """The step in a label made by `version_label`."""
    return int(label.rpartition(".")[2])


def label_lineage(label: str) -> int:
    """The lineage in a label made by `version_label`."""
    return int(label.rpartition(".")[0])


def checksum(data: Buffer) -> str:
    """xxh3 (64 bits) of bytes in host memory, hexadecimal. xxh64 would take twice as long."""
    return xxhash.xxh3_64(data).hexdigest()


def device_checksum(bucket: "Tensor") -> str:
    """The checksum of flat bytes on any device, computed there: two sums of 64 bits, hexadecimal.

    bucket: uint8, a multiple of 8 bytes. The first sum is over its 64-bit words, the second over word ·
    position, both modulo 2^64. A flipped bit always changes the first, words in a wrong order change the
    second."""
    # Not at the head: most who import this module never see a tensor.
    import torch

    words = bucket.view(torch.int64)
    plain = torch.zeros(1, dtype=torch.int64, device=bucket.device)
    weighted = torch.zeros_like(plain)
    for start in range(0, len(words), _SUMMED_WORDS):
        part = words[start : start + _SUMMED_WORDS]
        plain += part.sum()
        weighted += (part * torch.arange(start + 1, start + 1 + len(part), device=bucket.device)).sum()
    return f"{int(plain) % 2**64:016x}{int(weighted) % 2**64:016x}"


def verified(manifest: Manifest, buckets: Sequence[Buffer]) -> Iterator[Buffer]:
    """The buckets in order, each checked when it is asked for.

    Raises WeightsError on a wrong count, size or checksum."""
    if len(buckets) != len(manifest.buckets):
        counts = f"{len(buckets)} buckets arrived, the manifest lists {len(manifest.buckets)}"
        raise WeightsError(f"version {manifest.step}: {counts}")
    for index, (entry, data) in enumerate(zip(manifest.buckets, buckets, strict=True)):
        if memoryview(data).nbytes != entry.size_bytes or checksum(data) != entry.checksum:
            raise WeightsError(f"version {manifest.step}: bucket {index} does not match its checksum")
        yield data
