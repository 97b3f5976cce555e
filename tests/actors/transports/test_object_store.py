"""Versions from the object store: verified bytes in one file that another process can read, each over the one
before.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dynalign.actors.transports.object_store import ReceiveBuffer
from dynalign.configs.errors import DeadlineExceeded, WeightsError
from dynalign.learner.weights import Bytes, make_version
from dynalign.rollout.weights.version import Manifest, WeightVersion
from dynalign.rollout.weights.version_file import tensors_in


def made(value: float, size: int = 70) -> tuple[Manifest, list[Bytes]]:
    """Three buckets."""
    return make_version([(name, torch.full((size,), value)) for name in "abc"], 1, 3, "float32", 64)


def received(buffer: ReceiveBuffer, manifest: Manifest, buckets: list[Bytes], there: bool = True) -> Path:
    async def fetch() -> Path:
        futures = [asyncio.get_running_loop().create_future() for _ in buckets]
        for future, bucket in zip(futures, buckets, strict=True):
            if there:
                future.set_result(bucket)
        return await buffer.fetch(
            WeightVersion(1, 3, manifest.pack(), tuple(futures), manifest.size_bytes), 0.5
        )

    return asyncio.run(fetch())


def test_each_version_overwrites_the_one_before_in_the_same_memory() -> None:
    buffer = ReceiveBuffer()
    files = []
    for value in (1.0, 2.0):
        manifest, buckets = made(value)
        assert len(buckets) == 3
        files.append(received(buffer, manifest, buckets))
        assert {
            name: tensor.unique().tolist() for name, tensor in tensors_in(files[-1], manifest)
        } == dict.fromkeys("abc", [value])
    assert files[0] == files[1]


@pytest.mark.parametrize("sizes", [(10, 5000), (5000, 10)])
def test_a_version_of_another_size_fits_and_keeps_nothing_of_the_one_before(
    sizes: tuple[int, int],
) -> None:
    buffer = ReceiveBuffer()
    for size in sizes:
        manifest, buckets = made(3.0, size)
        assert received(buffer, manifest, buckets).read_bytes() == b"".join(
            bucket.tobytes() for bucket in buckets
        )


def test_another_process_can_read_the_file_which_ends_with_this_process() -> None:
    manifest, buckets = made(1.0)
    file = received(ReceiveBuffer(), manifest, buckets)
    read = subprocess.run(
        [sys.executable, "-c", f"print(len(open({str(file)!r}, 'rb').read()))"],
        capture_output=True,
        check=True,
    )
    assert int(read.stdout) == manifest.size_bytes
    # no folder names it: the kernel frees it with the last process that has it open
    assert os.stat(file).st_nlink == 0


def test_damaged_bytes_are_refused_before_an_engine_reads_them() -> None:
    manifest, buckets = made(1.0)
    buckets[1] = np.where(np.arange(buckets[1].size) == 5, 1, buckets[1]).astype(np.uint8)
    with pytest.raises(WeightsError, match="bucket 1 does not match"):
        received(ReceiveBuffer(), manifest, buckets)


def test_a_version_without_bytes_is_received_too() -> None:
    received(ReceiveBuffer(), Manifest(0, 0, (), ()), [])


def test_bytes_that_do_not_arrive_end_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded, match=r"weight version 1\.3"):
        received(ReceiveBuffer(), *made(1.0), there=False)
