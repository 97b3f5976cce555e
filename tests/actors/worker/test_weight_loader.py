"""A worker's way to a version: what is offered, and the object store when that brings nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dynalign.actors.transports.ipc import MemoryOffer
from dynalign.actors.transports.nccl import BroadcastOffer
from dynalign.actors.transports.shared_memory import FileOffer, SharedMemoryPublisher
from dynalign.actors.worker.weight_loader import WeightLoader
from dynalign.configs.errors import DeadlineExceeded, EngineError, PublisherGone, TransferFailed
from dynalign.learner.weights import make_version
from dynalign.rollout.engine.deterministic import DeterministicEngine
from dynalign.rollout.engine.swap_gate import SwapGate
from dynalign.rollout.weights.broadcast import Root
from dynalign.rollout.weights.source import BroadcastMember, MemoryHandle, Source
from dynalign.rollout.weights.version import WeightVersion

TENSORS = [("a", torch.arange(40.0)), ("b", torch.ones(9))]
MANIFEST, BUCKETS = make_version(TENSORS, 1, 3, "float32", 128)
HANDLES = (MemoryHandle("GPU-0", 64, b"m", 64, 0, b"c", 0, b"e", False),)


class Engine(DeterministicEngine):
    """Keeps what it was given, files by their bytes; the first load `fails`."""

    def __init__(self, fails: BaseException | None = None, patience_s: float = 0.0) -> None:
        super().__init__(range(10), 0, "1.0")
        self.fails, self.patience_s, self.given = fails, patience_s, list[Any]()

    async def load_weights(self, label: str, manifest: bytes, source: Source) -> float:
        self.given.append(source.read_bytes() if isinstance(source, Path) else source)
        self.source = source
        await asyncio.sleep(self.patience_s)
        if self.fails is not None:
            failed, self.fails = self.fails, None
            raise failed
        return 0.25


def stored(**changed: object) -> WeightVersion:
    """In an object store whose references are plain futures. Made on the loop that awaits them."""

    def there(bucket: np.ndarray) -> "asyncio.Future[np.ndarray]":
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        future.set_result(bucket)
        return future

    version = WeightVersion(
        1, 3, MANIFEST.pack(), tuple(there(bucket) for bucket in BUCKETS), MANIFEST.size_bytes
    )
    return replace(version, **changed)  # type: ignore[arg-type]


def publisher(answer: Callable[[int], Awaitable[WeightVersion | None]]) -> Any:
    return SimpleNamespace(fallback=SimpleNamespace(remote=answer))


def load(
    engine: Engine, make: Callable[[], WeightVersion], deadline_s: float = 5.0
) -> tuple[float, WeightLoader, list[str]]:
    """The pause, the loader, and what was told while no judge batch could begin."""
    told: list[str] = []

    async def story() -> tuple[float, WeightLoader]:
        gate = SwapGate()
        loader = WeightLoader(engine, gate, "rollout-0", 1, deadline_s)
        return await loader.load(make(), lambda: told.append("loaded")), loader

    return *asyncio.run(story()), told


WHOLE = b"".join(bucket.tobytes() for bucket in BUCKETS)


def test_without_an_offer_a_version_comes_as_one_file_of_memory_that_no_folder_names() -> None:
    engine = Engine()
    pause_s, loader, told = load(engine, stored)
    assert (pause_s, loader.fallbacks, told, engine.given) == (0.25, 0, ["loaded"], [WHOLE])
    assert "(deleted)" in os.readlink(engine.source)


def test_memory_of_the_same_gpu_is_handed_on_as_it_is() -> None:
    engine = Engine()
    _, loader, told = load(engine, lambda: stored(handles=(), offer=MemoryOffer(HANDLES, None)))
    assert (loader.fallbacks, told, engine.given) == (0, ["loaded"], [HANDLES])


def test_an_engine_that_cannot_read_there_gets_the_same_version_from_the_object_store() -> None:
    asked: list[int] = []

    async def fallback(step: int) -> WeightVersion:
        asked.append(step)
        return stored()

    engine = Engine(fails=TransferFailed("another GPU"))
    _, loader, told = load(
        engine, lambda: stored(handles=(), offer=MemoryOffer(HANDLES, publisher(fallback)))
    )
    assert (loader.fallbacks, told, engine.given, asked) == (1, ["loaded"], [HANDLES, WHOLE], [3])


def in_memory(**changed: object) -> WeightVersion:
    """As a learner on this host publishes it."""
    learner: Any = SimpleNamespace(
        weights=lambda lineage, staging: make_version(TENSORS, lineage, 3, "float32", 128, None, staging)
    )
    version = SharedMemoryPublisher(None).publish(learner, 1)
    assert version is not None
    assert isinstance(version.offer, FileOffer)
    return replace(version, offer=replace(version.offer, **changed))  # type: ignore[arg-type]


def test_the_learner_s_file_on_this_host_is_loaded_without_a_copy() -> None:
    engine = Engine()
    pause_s, loader, told = load(engine, in_memory)
    assert (pause_s, loader.fallbacks, told) == (0.25, 0, ["loaded"])
    assert engine.given[0][: len(WHOLE)] == WHOLE
    assert not engine.source.exists(), "the worker has closed it: the learner may write again"


@pytest.mark.parametrize(
    ("changed", "fallbacks"), [({"host": "another"}, 0), ({"path": "/proc/1/fd/987654"}, 1)]
)
def test_a_worker_that_does_not_reach_the_file_asks_for_the_version_in_the_object_store(
    changed: dict[str, str], fallbacks: int
) -> None:
    async def fallback(step: int) -> WeightVersion:
        return stored()

    engine = Engine()
    _, loader, told = load(engine, lambda: in_memory(**changed, publisher=publisher(fallback)))
    assert (loader.fallbacks, told, engine.given) == (fallbacks, ["loaded"], [WHOLE])


def test_a_version_that_is_in_the_object_store_too_is_fetched_there_from_afar() -> None:
    engine = Engine()
    _, loader, _ = load(engine, lambda: replace(in_memory(host="another"), handles=stored().handles))
    assert (loader.fallbacks, engine.given) == (0, [WHOLE])


def test_a_version_that_has_a_successor_by_then_is_as_gone_as_its_publisher() -> None:
    async def none(step: int) -> None:
        return None

    with pytest.raises(PublisherGone, match="successor"):
        load(
            Engine(fails=TransferFailed("torn")),
            lambda: stored(handles=(), offer=MemoryOffer(HANDLES, publisher(none))),
        )


def test_a_worker_that_is_late_for_a_broadcast_takes_the_object_store() -> None:
    root = Root("127.0.0.1", 1.0, gather_s=0.0)
    root.send("1.3", [torch.zeros(64, dtype=torch.uint8)])
    root.settle()
    engine = Engine()
    _, loader, told = load(engine, lambda: stored(offer=BroadcastOffer("127.0.0.1", root.port, 1.0)))
    assert (loader.fallbacks, told, engine.given) == (1, ["loaded"], [WHOLE])


def test_a_worker_in_time_joins_by_its_name_and_takes_the_object_store_when_the_epoch_fails() -> None:
    root = Root("127.0.0.1", 0.3, gather_s=0.0)
    root.send("1.3", [torch.zeros(64, dtype=torch.uint8)])
    engine = Engine(fails=TransferFailed("another member is gone"))
    _, loader, told = load(engine, lambda: stored(offer=BroadcastOffer("127.0.0.1", root.port, 0.3)))
    root.settle()
    place = BroadcastMember("127.0.0.1", root.port, "1.3", "group-1", 1, 2, 0.3)
    assert (loader.fallbacks, told, engine.given) == (1, ["loaded"], [place, WHOLE])


def test_an_engine_that_dies_of_a_version_is_offered_nothing_more() -> None:
    engine = Engine(fails=EngineError("failed half-way"))
    with pytest.raises(EngineError):
        load(engine, lambda: stored(offer=MemoryOffer(HANDLES, None)))
    assert engine.given == [HANDLES]


def test_a_load_that_hangs_ends_at_the_deadline_and_says_which_version() -> None:
    with pytest.raises(DeadlineExceeded, match=r"weight version 1\.3 in rollout-0"):
        load(Engine(patience_s=30.0), lambda: stored(offer=MemoryOffer(HANDLES, None)), deadline_s=0.2)
