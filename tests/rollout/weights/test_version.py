from dataclasses import replace

import pytest

from dynalign.configs.errors import WeightsError
from dynalign.rollout.weights.version import (
    AdapterEntry,
    BucketEntry,
    Manifest,
    TensorEntry,
    checksum,
    label_step,
    verified,
    version_label,
)

BUCKETS = (b"first bucket", b"second")
MANIFEST = Manifest(
    2,
    7,
    (TensorEntry("a", (3, 2), "bfloat16", 0, 0, 12), TensorEntry("b", (3,), "bfloat16", 1, 0, 6)),
    tuple(BucketEntry(len(bucket), checksum(bucket)) for bucket in BUCKETS),
)


def test_a_manifest_comes_back_from_msgpack_as_it_went_in() -> None:
    assert Manifest.unpack(MANIFEST.pack()) == MANIFEST
    adapter = replace(MANIFEST, adapter=AdapterEntry(8, 12.5, ("q_proj", "v_proj")))
    assert Manifest.unpack(adapter.pack()) == adapter


def test_a_tensors_offset_in_the_file_counts_the_buckets_before_it() -> None:
    assert [MANIFEST.file_offset_bytes(tensor) for tensor in MANIFEST.tensors] == [0, 12]
    assert MANIFEST.size_bytes == 18


def test_a_label_names_lineage_and_step_and_gives_the_step_back() -> None:
    assert version_label(2, 7) == "2.7"
    assert label_step("2.7") == 7


def test_buckets_with_one_changed_byte_are_refused_by_number() -> None:
    with pytest.raises(WeightsError, match="bucket 1"):
        list(verified(MANIFEST, [BUCKETS[0], b"secone"]))


def test_a_missing_bucket_is_refused() -> None:
    with pytest.raises(WeightsError, match="1 buckets arrived"):
        list(verified(MANIFEST, BUCKETS[:1]))


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x01", MANIFEST.pack()[:-3], MANIFEST.pack().replace(b"format\x03", b"format\x01")],
)
def test_a_manifest_that_is_damaged_or_of_another_format_is_refused(packed: bytes) -> None:
    with pytest.raises(WeightsError, match="manifest"):
        Manifest.unpack(packed)
