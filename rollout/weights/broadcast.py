"""One version sent to many engines at once, bucket after bucket.

Needed with several GPUs only: skip it on a first reading.

    Root, in learner rank 0      gather each READY ─► name the members ─► all joined? ─► go ─► broadcast
    ready, in a rollout worker   READY ─► member, or late
    Receiver, in an engine       join ─► go ─► (a new group, if other members than last time) ─► broadcast

They meet at a TCP store that the root serves, and every wait has a deadline. Up to and including the first
byte that `Receiver.join` receives, nothing has been written. So whoever is late, and everybody if a member
dies before that, takes the version from the object store. A member that dies later stops the broadcast for
all; each side notices by its own deadline. Which workers are members is decided in `epoch.py`.

One form serves both: gloo in host memory, NCCL in GPU memory. vLLM's own NCCL engine has no deadline and
no checksum, and an engine that was started with it can be reached in no other way.
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
# Deadlines after which an epoch that should end is considered hung: joining, connecting and a bucket have one
# each.
_HANGS = 4
_WATCHDOG = "TORCH_NCCL_ASYNC_ERROR_HANDLING"


class Wire:
    """One end of a process group whose rank 0 broadcasts. After a failure it cannot be used again."""

    def __init__(
        self, store: Any, rank: int, world_size: int, device: torch.device, deadline_s: float
    ) -> None:
        """store: where the ranks meet. deadline_s: seconds for connecting and for each broadcast.

        Raises RuntimeError or TransferFailed when the ranks do not connect."""
        self._store = store  # kept, since the group reads it until it ends
        self._deadline_s = deadline_s
        make = _gloo if device.type == "cpu" else _nccl
        self._backend = make(store, rank, world_size, timedelta(seconds=deadline_s))
        try:  # NCCL connects at its first collective: do it here, where nothing has been written yet
            self.broadcast(torch.zeros(1, dtype=torch.uint8, device=device))
        except RuntimeError:
            self.drop()
            raise

    def broadcast(self, tensor: Tensor) -> None:
        """Copies rank 0's bytes into every rank's tensor. Raises TransferFailed or RuntimeError."""
        options = BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        options.asyncOp = True
        until_s = time.monotonic() + self._deadline_s
        work = self._backend.broadcast([tensor], options)
        while not work.is_completed():
            if time.monotonic() > until_s:
                raise TransferFailed(f"no bytes of a weight version arrived in {self._deadline_s:g} s")
            time.sleep(_POLL_S / 10)
        work.wait()

    def drop(self) -> None:
        """Ends the group on this side, operations under way included."""
        self._backend.abort()


def _gloo(store: Any, rank: int, world_size: int, limit: timedelta) -> Any:
    return ProcessGroupGloo(store, rank, world_size, limit)


def _nccl(store: Any, rank: int, world_size: int, limit: timedelta) -> Any:
    """A group without torch's watchdog, which would end this whole process for one lost peer.

    The deadline of `Wire.broadcast` ends the group instead."""
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
    """The learner's side. `send` begins an epoch in a thread; `settle` ends it."""

    def __init__(self, address: str, deadline_s: float, gather_s: float = GATHER_S) -> None:
        """address: of this node, for the others. deadline_s: for each wait. gather_s: see `Membership`."""
        self.address = address
        self._deadline_s = deadline_s
        limit = timedelta(seconds=deadline_s)
        self._store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=limit)
        self.port: int = self._store.port
        self._membership = Membership(gather_s)
        self._wire: tuple[str, Wire] | None = None
        self._labels: list[str] = []
        self._settling = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, label: str, buckets: Sequence[Tensor]) -> None:
        """Starts to broadcast a version. buckets: on one device, and unchanged until `settle` returns."""
        self._labels.append(label)
        self._settling.clear()
        name = f"weights-{label}"
        self._thread = threading.Thread(target=self._epoch, args=(label, buckets), name=name, daemon=True)
        self._thread.start()

    def settle(self) -> bool:
        """Waits until the epoch under way has ended, at the latest by its deadlines. Later READYs are late.

        False when it does not end: the GPU's driver hangs, and neither root nor buckets may be used again."""
        self._settling.set()
        if self._thread is None:
            return True
        self._thread.join(_HANGS * self._deadline_s)
        if self._thread.is_alive():
            return False
        self._thread = None
        if asked := self._ready(self._labels[-1]):
            self._membership.over(asked)
        for label in self._labels[:-1]:  # the newest one stays, so that a latecomer is refused at once
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
                names = ", ".join(epoch.first_rank)
                raise TransferFailed(f"not all of {names} joined within {self._deadline_s:g} s")
            self._store.set(f"{label}/go", "1")
            with _own_stream(buckets[0].device):
                wire = self._wire_of(epoch, buckets[0].device)
                for bucket in buckets:
                    wire.broadcast(bucket)
        except RuntimeError as error:  # TransferFailed, and torch's own errors of store and group
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
        asked = self._store.add(f"{label}/ready", 0)
        keys = [f"{label}/ready/{number}" for number in range(1, asked + 1)]
        return [Ready(**json.loads(self._store.get(key))) for key in keys if self._store.check([key])]

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
    """A CUDA stream of its own, so that the broadcast runs beside the learner's kernels."""
    if device.type == "cpu":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def ready(address: str, port: int, label: str, name: str, ranks: int, deadline_s: float) -> BroadcastMember:
    """Says READY for a version, and returns the engine's membership when the members are known.

    address, port: of the root's store. label: the version's name. name: the worker's. ranks: processes of
    its engine. deadline_s: for each wait. Raises TransferFailed when the worker is late, or the root
    cannot be reached."""
    try:
        store = TCPStore(address, port, timeout=timedelta(seconds=deadline_s + GATHER_S))
        number = store.add(f"{label}/ready", 1)
        store.set(f"{label}/ready/{number}", json.dumps(asdict(Ready(name, ranks))))
        epoch = Epoch(**json.loads(store.get(f"{label}/members")))
    except RuntimeError as error:
        raise TransferFailed(f"no word from the learner about version {label}: {error}") from error
    if name not in epoch.first_rank:
        raise TransferFailed(f"{name} is late for the broadcast of version {label}")
    first_rank = epoch.first_rank[name]
    return BroadcastMember(address, port, label, epoch.group, first_rank, epoch.world_size, deadline_s)


class Receiver:
    """The side of one process of an engine. It keeps its group from version to version."""

    def __init__(self, device: torch.device) -> None:
        """device: where the buckets arrive."""
        self._device = device
        self._held: tuple[str, int, str, Wire] | None = None

    def join(self, member: BroadcastMember, part: int) -> Wire:
        """The group of an epoch, once all its members are there. part: index of this process in its engine.

        Raises TransferFailed, before anything has been received."""
        try:
            # Two deadlines, since the root itself waits for the other members.
            store = TCPStore(member.address, member.port, timeout=timedelta(seconds=2 * member.deadline_s))
            store.add(f"{member.label}/joined", 1)
            if store.get(f"{member.label}/go") != b"1":
                raise TransferFailed(f"another member of the epoch of version {member.label} is gone")
            return self._wire(member, store, member.first_rank + part)
        except RuntimeError as error:
            self.drop()
            raise TransferFailed(f"version {member.label}: {error}") from error

    def _wire(self, member: BroadcastMember, store: Any, rank: int) -> Wire:
        named = (member.address, member.port, member.group)
        if self._held is None or self._held[:3] != named:
            self.drop()
            members = PrefixStore(member.group, store)
            wire = Wire(members, rank, member.world_size, self._device, member.deadline_s)
            self._held = (*named, wire)
        return self._held[3]

    def drop(self) -> None:
        """Ends the group on this side."""
        if self._held is not None:
            self._held[3].drop()
            self._held = None
