"""A worker's way to a version: the fastest one offered, and the object store where that brings nothing.

    offer        READY, or memory handles ─► engine.load_weights                     TransferFailed: nothing was written
      or none
    object store fetch ─► checksums ─► file in memory ─► engine.load_weights

No judge batch runs while a version is loaded (`SwapGate`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from actors import transport_ipc, transport_nccl
from actors.transport_ipc import MemoryOffer
from actors.transport_nccl import BroadcastOffer
from actors.transport_object_store import Landing
from configs.errors import DeadlineExceeded, TransferFailed
from rollout.engine import Engine
from rollout.group_maker import SwapGate
from rollout.weight_source import Source
from rollout.weight_version import WeightVersion

logger = logging.getLogger(__name__)


class WeightLoader:
    """ranks: processes of the engine that hold a part of the model. `fallbacks`: versions that came another way than was offered."""

    def __init__(self, engine: Engine, gate: SwapGate, worker: str, ranks: int, deadline_s: float) -> None:
        self._engine, self._gate, self._worker, self._ranks, self._deadline_s = engine, gate, worker, ranks, deadline_s
        self.fallbacks = 0
        self._landing = Landing()

    async def load(self, version: WeightVersion, loaded: Callable[[], None]) -> float:
        """Seconds that generation paused. loaded: called before the next judge batch begins.

        Raises DeadlineExceeded, PublisherGone, or whatever ended the engine."""
        if version.offer is not None:
            try:
                return await self._swap(version, lambda: self._offered(version), loaded)
            except TransferFailed as failed:
                self.fallbacks += 1
                logger.warning("%s takes it from the object store: %s", self._worker, failed)
        if isinstance(version.offer, MemoryOffer):
            version = await transport_ipc.spare(version.offer, version, self._deadline_s)
        file = await self._landing.fetch(version, self._deadline_s)
        return await self._swap(version, lambda: _at_hand(file), loaded)

    async def _swap(self, version: WeightVersion, find: Callable[[], Awaitable[Source]], loaded: Callable[[], None]) -> float:
        try:
            async with asyncio.timeout(self._deadline_s), self._gate.swapping():
                pause_s = await self._engine.load_weights(version.label, version.manifest, await find())
                loaded()
                return pause_s
        except TimeoutError as error:
            raise DeadlineExceeded(f"loading weight version {version.label} in {self._worker}", self._deadline_s) from error

    async def _offered(self, version: WeightVersion) -> Source:
        if isinstance(version.offer, BroadcastOffer):
            return await transport_nccl.place(version.offer, version, self._worker, self._ranks)
        if isinstance(version.offer, MemoryOffer):
            return version.offer.handles
        raise TransferFailed(f"an unknown offer: {type(version.offer).__name__}")


async def _at_hand(file: Path) -> Source:
    return file
