"""Time from the learner's weights to an engine that has loaded them, against the engine's own reload.

    main thread, learner's core      CPU: Learner.weights ─► a file in shared memory
                                     GPU: Learner.stage ─► buckets in the GPU's memory
    engine thread, engine's core     checksums ─► load_weights, sequences in flight

On both devices the bare engine reloads from a file in shared memory. In a run, the announcement of the
version (commit, long poll) and the wait for a judge batch come on top.
"""

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from dynalign.actors.transports import shared_memory as transport_shared_memory
from dynalign.actors.transports.base import Publisher
from dynalign.actors.transports.ipc import IpcPublisher, MemoryOffer
from dynalign.actors.transports.shared_memory import FileOffer, SharedMemoryPublisher
from dynalign.benchmarks import bare_vllm
from dynalign.benchmarks.alternate import alternated
from dynalign.benchmarks.catalog import ENGINE_CORE, LEARNER_CORE
from dynalign.benchmarks.learner_side import start_learner
from dynalign.benchmarks.rollout_side import RolloutSide
from dynalign.benchmarks.workload import Workload
from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.weights.version import WeightVersion

T = TypeVar("T")

_FLYING_TOKENS = {"cpu": 400, "gpu": 1000}
"""Long enough that every sequence is still in flight when the version is loaded."""
_IN_FLIGHT_AFTER_S = 2.0  # by then all contexts are prefilled and every sequence decodes
_DEADLINE_S = 120.0
_START_DEADLINE_S = 400.0  # a GPU's engine compiles its model


class EngineThread:
    """An event loop on one core; what it starts stays there. On any core for None."""

    def __init__(self, core: int | None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(core,), daemon=True)
        self._thread.start()

    def _run(self, core: int | None) -> None:
        if core is not None:
            os.sched_setaffinity(
                0, {core}
            )  # of this thread, and of all threads and processes that come from it
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_DEADLINE_S)


def measure(workload: Workload) -> dict[str, list[float]]:
    cores = sorted(os.sched_getaffinity(0))
    on_gpu = workload.device == "gpu"
    thread = EngineThread(None if on_gpu else cores[ENGINE_CORE])
    side: RolloutSide = thread.call(RolloutSide.start(workload)).result(timeout=_START_DEADLINE_S)
    if not on_gpu:
        os.sched_setaffinity(0, {cores[LEARNER_CORE]})
    learner = start_learner(workload)
    learner.export(workload.memory)
    no_actor: Any = None  # nothing asks for a fallback here
    lineage = 1
    publisher: Publisher = IpcPublisher(no_actor) if on_gpu else SharedMemoryPublisher(no_actor)
    for _ in range(2):  # as from a run's third version on: both files have their pages
        publisher.publish(learner, lineage)
    sequences = side.run.rollout.prompts_per_step * side.run.rollout.group_size
    long_answers = [_long(side, index, _FLYING_TOKENS[workload.device]) for index in range(sequences)]

    async def ours() -> Mapping[str, float]:
        nonlocal lineage
        lineage += 1  # names the version: the learner is still at step 0
        flying = thread.call(_fly(side, long_answers))
        await asyncio.sleep(_IN_FLIGHT_AFTER_S)
        started_s = time.monotonic()
        version = publisher.publish(learner, lineage)
        if version is None:
            raise RuntimeError("rank 0 has made no version")
        published_s = time.monotonic() - started_s
        pause_s = await asyncio.wrap_future(thread.call(_load(side, version)))
        synced_s = time.monotonic() - started_s
        in_flight = not flying.done()
        flying.cancel()
        await asyncio.wrap_future(thread.call(_idle(side)))
        if not in_flight:
            raise RuntimeError("no sequence was in flight any more when the version was loaded")
        return {"publish_to_loaded_s": synced_s, "publish_s": published_s, "generation_pause_s": pause_s}

    async def bare() -> Mapping[str, float]:
        return {
            "bare_reload_s": await asyncio.wrap_future(
                thread.call(bare_vllm.reload(side.engine, workload.memory))
            )
        }

    samples = asyncio.run(alternated([ours, bare], workload.runs))
    thread.call(side.engine.close()).result(timeout=_DEADLINE_S)
    thread.stop()
    return samples


def _long(side: RolloutSide, index: int, tokens: int) -> EngineRequest:
    context_ids = side.contexts.sampling_context("Write a long story about a village that shares one well.")
    return EngineRequest(context_ids, max_tokens=tokens, seed=index)


async def _fly(side: RolloutSide, requests: list[EngineRequest]) -> None:
    await asyncio.gather(*map(side.engine.generate, requests))


async def _load(side: RolloutSide, version: WeightVersion) -> float:
    """Verifies and loads as a rollout worker does; the pause in seconds."""
    if isinstance(version.offer, MemoryOffer):
        return await side.engine.load_weights(version.label, version.manifest, version.offer.handles)
    if not isinstance(version.offer, FileOffer):
        raise RuntimeError("the version is in no file, and on no GPU")
    async with transport_shared_memory.reading(version.offer, version) as file:
        return await side.engine.load_weights(version.label, version.manifest, file)


async def _idle(side: RolloutSide) -> None:
    """Returns when the engine has nothing to do: aborted sequences are gone once a later request is
    answered."""
    await side.engine.generate(EngineRequest((1, 2, 3), max_tokens=1))
