"""Brings a version into a worker's engine: by the transport that is offered, or through the object store if
that fails.

    offer        READY, memory handles, or the learner's file with its checksums ─► engine.load_weights
      TransferFailed (nothing was written), or no offer within reach
    object store fetch ─► checksums ─► file in memory ─► engine.load_weights

No judge batch runs while a version is loaded (`SwapGate`).
"""

import asyncio
import logging
from collections.abc import Callable

from dynalign.actors.transports import (
    nccl as transport_nccl,
)
from dynalign.actors.transports import (
    object_store as transport_object_store,
)
from dynalign.actors.transports import (
    shared_memory as transport_shared_memory,
)
from dynalign.actors.transports.ipc import MemoryOffer
from dynalign.actors.transports.nccl import BroadcastOffer
from dynalign.actors.transports.object_store import ReceiveBuffer
from dynalign.actors.transports.shared_memory import FileOffer
from dynalign.configs.errors import DeadlineExceeded, TransferFailed
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.engine.swap_gate import SwapGate
from dynalign.rollout.weights.source import Source
from dynalign.rollout.weights.version import WeightVersion

logger = logging.getLogger(__name__)


class WeightLoader:
    """Loads versions into one engine.

    gate: keeps judge batches and loads apart. ranks: processes of the engine that hold a part of the model.
    deadline_s: seconds that one load may take.
    """

    def __init__(self, engine: Engine, gate: SwapGate, worker: str, ranks: int, deadline_s: float) -> None:
        self._engine = engine
        self._gate = gate
        self._worker = worker
        self._ranks = ranks
        self._deadline_s = deadline_s
        self._buffer = ReceiveBuffer()
        self.fallbacks = 0
        """Versions that came through the object store because the transport offered had failed."""

    async def load(self, version: WeightVersion, loaded: Callable[[], None]) -> float:
        """Brings `version` into the engine; returns the seconds that generation paused. loaded: called before
        the next judge batch begins.

        Raises DeadlineExceeded, PublisherGone, or the error that ended the engine.
        """
        elsewhere = isinstance(version.offer, FileOffer) and not version.offer.within_reach
        if version.offer is not None and not elsewhere:
            try:
                return await self._offered(version, loaded)
            except TransferFailed as failed:
                self.fallbacks += 1
                logger.warning("%s takes it from the object store: %s", self._worker, failed)
        if isinstance(version.offer, MemoryOffer | FileOffer) and not version.handles:
            version = await transport_object_store.fallback(
                version.offer.publisher, version, self._deadline_s
            )
        return await self._swap(version, await self._buffer.fetch(version, self._deadline_s), loaded)

    async def _offered(self, version: WeightVersion, loaded: Callable[[], None]) -> float:
        if isinstance(version.offer, FileOffer):
            async with transport_shared_memory.reading(version.offer, version) as file:
                return await self._swap(version, file, loaded)
        if isinstance(version.offer, MemoryOffer):
            return await self._swap(version, version.offer.handles, loaded)
        if isinstance(version.offer, BroadcastOffer):
            return await self._swap(version, version.offer, loaded)
        raise TransferFailed(f"an unknown offer: {type(version.offer).__name__}")

    async def _swap(
        self, version: WeightVersion, source: Source | BroadcastOffer, loaded: Callable[[], None]
    ) -> float:
        try:
            async with asyncio.timeout(self._deadline_s), self._gate.swapping():
                # READY goes out only now: from here on the other members of the broadcast wait for this one.
                if isinstance(source, BroadcastOffer):
                    source = await transport_nccl.member(source, version, self._worker, self._ranks)
                pause_s = await self._engine.load_weights(version.label, version.manifest, source)
                loaded()
                return pause_s
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"loading weight version {version.label} in {self._worker}", self._deadline_s
            ) from error
