"""Versions in the learner's memory: unchanged while read, the newest two at any time, without messages from
readers.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest
import torch

from dynalign.actors.transports import object_store
from dynalign.actors.transports.base import Buckets, Store
from dynalign.actors.transports.shared_memory import FileOffer, SharedMemoryPublisher, reading
from dynalign.configs.errors import TransferFailed
from dynalign.learner.weights import Bytes, Staging, make_version
from dynalign.rollout.weights.version import Manifest, WeightVersion
from dynalign.rollout.weights.version_file import tensors_in

ELEMENTS = 5000  # 20 kB: buckets begin inside a page
NOBODY: Any = None  # in place of learner rank 0's actor, which these tests do not call


class Learner:
    """At step n its tensors, of three buckets, are full of n."""

    step = 0

    def weights(self, lineage: int, staging: Staging | None = None) -> tuple[Manifest, list[Bytes]]:
        self.step += 1
        tensors = [(name, torch.full((ELEMENTS,), float(self.step))) for name in "abc"]
        return make_version(tensors, lineage, self.step, "float32", 4096, None, staging)


class Publisher(SharedMemoryPublisher):
    def __init__(self, store: Store = object_store.publish) -> None:
        super().__init__(NOBODY, store)
        self.learner: Any = Learner()

    def next(self) -> WeightVersion:
        version = self.publish(self.learner, 1)
        assert version is not None
        return version


def offer(version: WeightVersion) -> FileOffer:
    assert isinstance(version.offer, FileOffer)
    return version.offer


def values(version: WeightVersion) -> list[float]:
    """What a worker's engine finds in each tensor."""

    async def read() -> list[float]:
        async with reading(offer(version), version) as file:
            found = dict(tensors_in(file, Manifest.unpack(version.manifest)))
            assert list(found) == ["a", "b", "c"]
            return sorted({value for tensor in found.values() for value in tensor.tolist()})

    return asyncio.run(read())


def test_the_newest_version_and_the_one_before_can_be_read_and_take_turns_in_two_files() -> None:
    publisher = Publisher()
    made = []
    for step in range(1, 6):
        made.append(publisher.next())
        assert [values(version) for version in made[-2:]] == [[float(step - 1)], [float(step)]][-len(made) :]
    assert len({offer(version).path for version in made}) == 2


def test_a_version_that_has_been_overwritten_is_refused() -> None:
    publisher = Publisher()
    first = publisher.next()
    publisher.next()
    publisher.next()
    with pytest.raises(TransferFailed, match=r"version 1\.1 .* checksum"):
        values(first)


def test_a_reader_sees_the_same_bytes_while_the_learner_continues_in_a_third_file() -> None:
    publisher = Publisher()

    async def read() -> None:
        first = publisher.next()
        async with reading(offer(first), first) as file:
            before = file.read_bytes()
            later = [publisher.next() for _ in range(4)]
            assert file.read_bytes() == before
            assert len({offer(version).path for version in later}) == 2
            assert offer(first).path not in {offer(version).path for version in later}
        assert offer(first).path in {offer(publisher.next()).path for _ in range(2)}, (
            "its readers have closed it, so it is written again"
        )

    asyncio.run(read())


def test_two_workers_read_at_the_same_time() -> None:
    version = Publisher().next()

    async def read() -> None:
        async with AsyncExitStack() as stack:
            files = [await stack.enter_async_context(reading(offer(version), version)) for _ in range(2)]
            assert files[0] != files[1]

    asyncio.run(read())


def test_a_file_cannot_be_read_while_it_is_written() -> None:
    publisher = Publisher()
    tried = []
    first = publisher.next()
    publisher.next()
    make = publisher.learner.weights

    def interrupted(lineage: int, staging: Staging | None = None) -> tuple[Manifest, list[Bytes]]:
        with pytest.raises(TransferFailed, match=r"version 1\.1"):
            values(first)
        tried.append(lineage)
        return make(lineage, staging)

    publisher.learner.weights = interrupted
    assert values(publisher.next()) == [3.0]
    assert tried == [1]


def test_another_process_reads_it_and_dies_with_its_lock() -> None:
    publisher = Publisher()
    first = publisher.next()
    code = (
        "import asyncio, os, sys\n"
        "from dynalign.actors.transports.shared_memory import FileOffer, reading\n"
        "from dynalign.rollout.weights.version import WeightVersion\n"
        "async def read(version):\n"
        "    async with reading(version.offer, version) as file:\n"
        "        print(len(file.read_bytes()), flush=True); sys.stdin.read(1); os._exit(0)\n"
        f"offer = FileOffer({offer(first).path!r}, '', None)\n"
        f"asyncio.run(read(WeightVersion(1, 1, {first.manifest!r}, (), {first.size_bytes}, offer)))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert int(reader.stdout.readline()) >= first.size_bytes
        later = {offer(publisher.next()).path for _ in range(3)}
        assert offer(first).path not in later
        reader.communicate(b"x", timeout=20)
    assert offer(first).path in {offer(publisher.next()).path for _ in range(2)}


def test_the_memory_of_a_publisher_that_has_ended_cannot_be_read() -> None:
    version = Publisher().next()
    gone = FileOffer(f"/proc/{os.getpid()}/fd/987654", "", NOBODY)
    with pytest.raises(TransferFailed, match="No such file"):
        values(WeightVersion(1, 1, version.manifest, (), version.size_bytes, gone))


def test_after_the_first_fallback_every_version_goes_to_the_object_store_as_well() -> None:
    def stored(manifest: Manifest, buckets: Buckets) -> WeightVersion:
        handles = tuple(float(bucket.view(np.float32)[0]) for bucket in buckets)
        return WeightVersion(manifest.lineage, manifest.step, manifest.pack(), handles, manifest.size_bytes)

    publisher = Publisher(stored)
    first = publisher.next()
    second = publisher.next()
    assert first.handles == second.handles == ()
    fallback = publisher.fallback(publisher.learner, first)
    assert fallback is not None
    assert (fallback.handles, fallback.offer, fallback.manifest) == ((1.0,) * 3, first.offer, first.manifest)
    third = publisher.next()
    assert (third.handles, values(third)) == ((3.0,) * 3, [3.0])
    assert publisher.fallback(publisher.learner, first) is None, "the third version has overwritten it"
