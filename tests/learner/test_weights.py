"""Versions: what is reassembled from the buckets is what was published, cast once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynalign.configs.errors import WeightsError
from dynalign.learner.weights import ALIGNMENT_BYTES, Bytes, Staging, make_version, read_version
from dynalign.rollout.weights.version import Manifest, verified

shapes = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=12)


def tensors_of(shapes_: list[tuple[int, ...]], dtype: torch.dtype) -> list[tuple[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [
        (f"t{index}", torch.randn(shape, generator=draw).to(dtype)) for index, shape in enumerate(shapes_)
    ]


@given(
    shapes,
    st.integers(64, 4096),
    st.sampled_from(["bfloat16", "float32"]),
    st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_a_reassembled_version_equals_its_tensors(
    shapes_: list[tuple[int, ...]], bucket: int, dtype: str, source: torch.dtype
) -> None:
    tensors = tensors_of(shapes_, source)
    manifest, buckets = make_version(tensors, 2, 5, dtype, bucket)
    read = dict(read_version(Manifest.unpack(manifest.pack()), buckets))
    assert list(read) == [name for name, _ in tensors]
    assert all(torch.equal(read[name], tensor.to(read[name].dtype)) for name, tensor in tensors)
    assert {tensor.dtype for tensor in read.values()} <= {
        {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    }


@given(shapes, st.integers(64, 4096))
def test_the_manifest_describes_the_buckets(shapes_: list[tuple[int, ...]], bucket: int) -> None:
    manifest, buckets = make_version(tensors_of(shapes_, torch.float32), 2, 5, "float32", bucket)
    assert len(list(verified(manifest, [memoryview(data) for data in buckets]))) == len(buckets)
    assert all(entry.offset_bytes % ALIGNMENT_BYTES == 0 for entry in manifest.tensors)
    whole = np.concatenate(buckets).tobytes() if buckets else b""
    for entry, (_, tensor) in zip(manifest.tensors, tensors_of(shapes_, torch.float32), strict=True):
        start = manifest.file_offset_bytes(entry)
        assert whole[start : start + entry.size_bytes] == tensor.numpy().tobytes()


def test_a_bucket_is_closed_when_the_next_tensor_does_not_fit_and_a_large_one_has_its_own() -> None:
    tensors = [("a", torch.ones(16)), ("b", torch.ones(16)), ("large", torch.ones(100)), ("c", torch.ones(1))]
    manifest, buckets = make_version(tensors, 1, 0, "float32", 128)
    assert [entry.bucket for entry in manifest.tensors] == [0, 0, 1, 2]
    assert [data.nbytes for data in buckets] == [128, 448, 64]
    assert (manifest.lineage, manifest.step, manifest.size_bytes) == (1, 0, 640)


def test_equal_tensors_make_equal_checksums_whatever_lay_in_memory_before() -> None:
    tensors = [("a", torch.ones(3)), ("b", torch.ones(5))]
    first, _ = make_version(tensors, 1, 1, "bfloat16", 1 << 16)
    dirty = [np.full(1 << 16, 255, np.uint8) for _ in range(8)]  # what the allocator hands out next
    del dirty
    second, _ = make_version(tensors, 1, 1, "bfloat16", 1 << 16)
    assert first.buckets == second.buckets


def test_a_version_in_kept_buckets_equals_one_of_its_own_and_is_written_over_by_the_next() -> None:
    staging = Staging(torch.device("cpu"))
    staging.kept += [torch.full((320,), 255, dtype=torch.uint8) for _ in range(2)]  # no zeros in the gaps

    def made(value: float, kept: Staging | None) -> tuple[Manifest, list[Bytes]]:
        return make_version(
            [("a", torch.full((3, 7), value)), ("b", torch.full((70,), value))],
            1,
            1,
            "float32",
            320,
            None,
            kept,
        )

    first = made(1.0, staging)
    assert first[0] == made(1.0, None)[0]
    assert list(verified(first[0], [memoryview(bucket) for bucket in first[1]]))
    second = made(2.0, staging)
    assert second[0] == made(2.0, None)[0]
    with pytest.raises(WeightsError, match="does not match"):
        list(verified(first[0], [memoryview(bucket) for bucket in first[1]]))


def test_a_tensor_is_read_while_it_is_lent() -> None:
    lent = torch.zeros(4)

    def lending() -> object:
        for value in (1.0, 2.0):
            yield f"t{value}", lent.fill_(value)

    read = dict(read_version(*make_version(lending(), 1, 1, "float32", 1 << 10)))  # type: ignore[arg-type]
    assert [float(tensor.sum()) for tensor in read.values()] == [4.0, 8.0]


def test_one_flipped_bit_is_noticed() -> None:
    manifest, buckets = make_version([("a", torch.ones(64))], 1, 1, "float32", 1 << 10)
    buckets[0][17] ^= 1
    with pytest.raises(WeightsError, match="bucket 0 does not match"):
        list(verified(manifest, [memoryview(data) for data in buckets]))
