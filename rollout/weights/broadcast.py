"""A version sent to many engines at once, bucket after bucket, by one broadcast group. Every wait has a deadline.

    Root, learner rank 0      gather the READY of every worker ─► members ─► all have joined? ─► go ─► broadcast
    ready, a rollout worker   READY ─► its place among the members, or late
    Member, an engine         joined ─► go ─► (a new group, if the members are not those of last time) ─► broadcast

They meet at a store that the root serves. Up to and including the first byte that `Member.join` receives nothing has been written:
whoever is late, and everybody if a member dies until then, takes the version from the object store. A member that dies later stops the
broadcast for all; every side notices by its own deadline.

gloo in host memory, NCCL in GPU memory, in one form. vLLM's own NCCL engine has no deadline and no checksum, and an engine that was
started with it has no other way in; this one is registered with vLLM's weight-transfer factory (`vllm_engine.py`).
"""

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import BroadcastOptions, PrefixStore, ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

from dynalign.configs.errors import TransferFailed
from dynalign.rollout.weights.epoch import GATHER_S, Epoch, Membership, Ready
from dynalign.rollout.weights.source import BroadcastMember

logger = logging.getLogger(__name__)

_POLL_S = 0.005
_HANGS = 4  # deadlines after which an epoch that is to end is taken to hang: joining, connecting and a bucket have one each
_WATCHDOG = "TORCH_NCCL_ASYNC_ERROR_HANDLING"


class Wire:
    """Broadcasts from rank 0 of one group. After a failure the group is of no use to anybody."""

    def __init__(
        self, store: Any, rank: int, world_size: int, device: torch.device, deadline_s: float
    ) -> None:
        self._store = store  # the group reads it as long as it lives
        self._deadline_s = deadline_s
        make = _gloo if device.type == "cpu" else _nccl
        self._backend = make(store, rank, world_size, timedelta(seconds=deadline_s))
        try:  # NCCL connects at its first collective: better here, where nothing has been written yet
            self.broadcast(torch.zeros(1, dtype=torch.uint8, device=device))
        except RuntimeError:
            self.drop()
            raise

    def broadcast(self, tensor: Tensor) -> None:
        """Rank 0's bytes are in everybody's `tensor` when it returns. Raises RuntimeError, TransferFailed at the deadline."""
        options = BroadcastOptions()
        options.rootRank, options.rootTensor, options.asyncOp = 0, 0, True
        until_s = time.monotonic() + self._deadline_s
        work = self._backend.broadcast([tensor], options)
        while not work.is_completed():
            if time.monotonic() > until_s:
                raise TransferFailed(f"no bytes of a weight version came or went in {self._deadline_s:g} s")
            time.sleep(_POLL_S / 10)
        work.wait()

    def drop(self) -> None:
        """Ends the group on this side, with whatever hangs in it."""
        self._backend.abort()


def _gloo(store: Any, rank: int, world_size: int, limit: timedelta) -> Any:
    return ProcessGroupGloo(store, rank, world_size, limit)


def _nccl(store: Any, rank: int, world_size: int, limit: timedelta) -> Any:
    """Without torch's watchdog, which ends its whole process for one lost peer: the deadline of `Wire.broadcast` ends the group."""
    from torch.distributed import ProcessGroupNCCL  # a CPU build of torch does not have it

    options = ProcessGroupNCCL.Options()
    options._timeout = limit
    before = os.environ.get(_WATCHDOG)
    os.environ[_WATCHDOG] = "0"  # read by the constructor
    try:
        return ProcessGroupNCCL(store, rank, world_size, options)
    finally:
        del os.environ[_WATCHDOG]
        if before is not None:
            os.environ[_WATCHDOG] = before


class Root:
    """The learner's side. `send` begins an epoch in a thread of its own; `settle` ends it."""

    def __init__(self, address: str, deadline_s: float, gather_s: float = GATHER_S) -> None:
        """address: this node's, as the others reach it."""
        self.address, self._deadline_s = address, deadline_s
        self._store = TCPStore(
            address, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=deadline_s)
        )
        self.port: int = self._store.port
        self._membership = Membership(gather_s)
        self._wire: tuple[str, Wire] | None = None
        self._labels: list[str] = []
        self._settling = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, label: str, buckets: Sequence[Tensor]) -> None:
        """The buckets, all on one device, must stay as they are until `settle` has returned."""
        self._labels.append(label)
        self._settling.clear()
        self._thread = threading.Thread(
            target=self._epoch, args=(label, buckets), name=f"weights-{label}", daemon=True
        )
        self._thread.start()

    def settle(self) -> bool:
        """What is under way ends, by its deadlines at the latest; who asks from now on is late. False when it does not end: a driver
        hangs in it, and neither root nor buckets must be used again."""
        self._settling.set()
        if self._thread is None:
            return True
        self._thread.join(_HANGS * self._deadline_s)
        if self._thread.is_alive():
            return False
        self._thread = None
        if asked := self._ready(self._labels[-1]):
            self._membership.over(asked)
        for label in self._labels[:-1]:  # the newest one stays, to tell a latecomer that it is one
            for key in self._store.list_keys():
                if key.startswith(f"{label}/"):
                    self._store.delete_key(key)
        del self._labels[:-1]
        return True

    def _epoch(self, label: str, buckets: Sequence[Tensor]) -> None:
        try:
            ready = self._gather(label)
            epoch = self._membership.close(ready) if ready else Epoch("", {}, 1)
            self._store.set(f"{label}/members", json.dumps(asdict(epoch)))
            if not ready:
                return
            if not self._all_join(label, epoch.world_size - 1):
                self._store.set(f"{label}/go", "0")
                raise TransferFailed(
                    f"not all of {', '.join(epoch.first_rank)} joined within {self._deadline_s:g} s"
                )
            self._store.set(f"{label}/go", "1")
            with _own_stream(buckets[0].device):
                wire = self._wire_of(epoch, buckets[0].device)
                for bucket in buckets:
                    wire.broadcast(bucket)
        except RuntimeError as error:  # torch's own errors of store and group are RuntimeErrors too
            logger.warning("version %s did not reach its engines by broadcast: %s", label, error)
            self._membership.broken()
            self._drop()

    def _gather(self, label: str) -> list[Ready]:
        first_s: float | None = None
        while not self._settling.is_set():
            ready = self._ready(label)
            first_s = time.monotonic() if ready and first_s is None else first_s
            if first_s is not None and self._membership.gathered(ready, time.monotonic() - first_s):
                return ready
            time.sleep(_POLL_S)
        return []

    def _ready(self, label: str) -> list[Ready]:
        slots = [f"{label}/ready/{slot}" for slot in range(1, self._store.add(f"{label}/ready", 0) + 1)]
        return [Ready(**json.loads(self._store.get(slot))) for slot in slots if self._store.check([slot])]

    def _all_join(self, label: str, ranks: int) -> bool:
        until_s = time.monotonic() + self._deadline_s
        while self._store.add(f"{label}/joined", 0) < ranks:
            if time.monotonic() > until_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _wire_of(self, epoch: Epoch, device: torch.device) -> Wire:
        if self._wire is None or self._wire[0] != epoch.group:
            self._drop()
            store = PrefixStore(epoch.group, self._store)
            self._wire = epoch.group, Wire(store, 0, epoch.world_size, device, self._deadline_s)
        return self._wire[1]

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire[1].drop()
            self._wire = None


def _own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """Beside the learner's kernels, not among them."""
    return nullcontext() if device.type == "cpu" else torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def ready(address: str, port: int, label: str, name: str, ranks: int, deadline_s: float) -> BroadcastMember:
    """The place of worker `name`, whose engine takes `ranks` ranks, in the epoch of version `label`.

    Waits until the members are known. Raises TransferFailed when it is late, or the root is not there."""
    try:
        store = TCPStore(address, port, timeout=timedelta(seconds=deadline_s + GATHER_S))
        slot = store.add(f"{label}/ready", 1)
        store.set(f"{label}/ready/{slot}", json.dumps(asdict(Ready(name, ranks))))
        members = json.loads(store.get(f"{label}/members"))
    except RuntimeError as error:
        raise TransferFailed(f"no word from the learner about version {label}: {error}") from error
    if name not in members["first_rank"]:
        raise TransferFailed(f"{name} is late for the broadcast of version {label}")
    return BroadcastMember(
        address, port, label, members["group"], members["first_rank"][name], members["world_size"], deadline_s
    )


class Member:
    """One process of an engine. Keeps its group from version to version."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: tuple[str, int, str, Wire] | None = None

    def join(self, place: BroadcastMember, part: int) -> Wire:
        """The group of this epoch, all of whose members are there; `part`: which of the engine's processes this is.

        Raises TransferFailed; nothing has been received then."""
        try:
            store = TCPStore(
                place.address, place.port, timeout=timedelta(seconds=2 * place.deadline_s)
            )  # the root waits for others
            store.add(f"{place.label}/joined", 1)
            if store.get(f"{place.label}/go") != b"1":
                raise TransferFailed(f"another member of the epoch of version {place.label} is gone")
            return self._wire(place, store, place.first_rank + part)
        except RuntimeError as error:
            self.drop()
            raise TransferFailed(f"version {place.label}: {error}") from error

    def _wire(self, place: BroadcastMember, store: Any, rank: int) -> Wire:
        named = place.address, place.port, place.group
        if self._held is None or self._held[:3] != named:
            self.drop()
            self._held = (
                *named,
                Wire(PrefixStore(place.group, store), rank, place.world_size, self._device, place.deadline_s),
            )
        return self._held[3]

    def drop(self) -> None:
        if self._held is not None:
            self._held[3].drop()
            self._held = None
