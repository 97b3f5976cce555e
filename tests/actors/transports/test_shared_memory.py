"""Versions in the learner's memory: whole while somebody reads, the newest two at any time, and never a word from the readers."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest
import torch

from dynalign.actors.transports import object_store as transport_object_store
from dynalign.actors.transports.shared_memory import FileOffer, SharedMemoryPublisher, reading
from dynalign.configs.errors import TransferFailed
from dynalign.learner.weights import Bytes, Staging, make_version
from dynalign.rollout.weights.version import Manifest, WeightVersion
from dynalign.rollout.weights.version_file import tensors_in

ELEMENTS = 5000  # 20 kB: buckets begin in the midst of a page


class Learner:
    """At step n its tensors, of three buckets, are full of n."""

    step = 0

    def weights(self, lineage: int, staging: Staging | None = None) -> tuple[Manifest, list[Bytes]]:
        self.step += 1
        tensors = [(name, torch.full((ELEMENTS,), float(self.step))) for name in "abc"]
        return make_version(tensors, lineage, self.step, "float32", 4096, None, staging)


class Publisher(SharedMemoryPublisher):
    def __init__(self) -> None:
        super().__init__(None)
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
    publisher, made = Publisher(), []
    for step in range(1, 6):
        made.append(publisher.next())
        assert [values(version) for version in made[-2:]] == [[float(step - 1)], [float(step)]][-len(made) :]
    assert len({offer(version).path for version in made}) == 2


def test_a_version_that_has_been_written_over_is_refused() -> None:
    publisher = Publisher()
    first, _, _ = publisher.next(), publisher.next(), publisher.next()
    with pytest.raises(TransferFailed, match=r"version 1\.1 .* checksum"):
        values(first)


def test_who_reads_keeps_every_byte_while_the_learner_goes_on_in_a_third_file() -> None:
    publisher = Publisher()

    async def story() -> None:
        first = publisher.next()
        async with reading(offer(first), first) as file:
            before = file.read_bytes()
            later = [publisher.next() for _ in range(4)]
            assert file.read_bytes() == before
            assert len({offer(version).path for version in later}) == 2
            assert offer(first).path not in {offer(version).path for version in later}
        assert offer(first).path in {offer(publisher.next()).path for _ in range(2)}, (
            "its readers have left: it is written again"
        )

    asyncio.run(story())


def test_two_workers_read_at_one_time() -> None:
    version = Publisher().next()

    async def story() -> None:
        async with AsyncExitStack() as stack:
            files = [await stack.enter_async_context(reading(offer(version), version)) for _ in range(2)]
            assert files[0] != files[1]

    asyncio.run(story())


def test_nobody_reads_while_it_is_written() -> None:
    publisher, tried = Publisher(), []
    first, _ = publisher.next(), publisher.next()
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
        "import asyncio, os, sys; from dynalign.actors.transports.shared_memory import FileOffer, reading; from dynalign.rollout.weights.version import *\n"
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


def test_a_publisher_that_is_gone_is_told_apart_from_its_memory() -> None:
    version = Publisher().next()
    gone = FileOffer(f"/proc/{os.getpid()}/fd/987654", "", None)
    with pytest.raises(TransferFailed, match="No such file"):
        values(WeightVersion(1, 1, version.manifest, (), version.size_bytes, gone))


def test_from_the_first_spare_on_every_version_goes_to_the_object_store_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stored(manifest: Manifest, buckets: Sequence[np.ndarray]) -> WeightVersion:
        handles = tuple(float(bucket.view(np.float32)[0]) for bucket in buckets)
        return WeightVersion(manifest.lineage, manifest.step, manifest.pack(), handles, manifest.size_bytes)

    monkeypatch.setattr(transport_object_store, "publish", stored)
    publisher = Publisher()
    first, second = publisher.next(), publisher.next()
    assert first.handles == second.handles == ()
    fallback = publisher.fallback(publisher.learner, first)
    assert fallback is not None
    assert (fallback.handles, fallback.offer, fallback.manifest) == ((1.0,) * 3, first.offer, first.manifest)
    third = publisher.next()
    assert (third.handles, values(third)) == ((3.0,) * 3, [3.0])
    assert publisher.fallback(publisher.learner, first) is None, "the third version has its place"
