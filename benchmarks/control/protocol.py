"""The handles of the benchmark's actors, typed for those that call them."""

from collections.abc import Sequence
from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.actors.worker.protocol import WorkerStats


class RankHandle(Protocol):
    """A `SimulatedRank`."""

    pace: RemoteMethod[[float], None]
    """(seconds of a step)."""


class HostHandle(Protocol):
    """A `WorkerHost`: a process with many simulated workers."""

    closed: RemoteMethod[[Sequence[str], int, float, int], float]
    """(names, slots of a worker, seconds of a group, groups) → seconds until that many groups were
    delivered."""
    open: RemoteMethod[[Sequence[str], float, float, float, float], list[float]]
    """(names, leases per second, seconds to settle, seconds, seconds of a group) → latency of each lease,
    seconds."""
    stop: RemoteMethod[[], None]


class VitalsHandle(Protocol):
    """A `Vitals`: answers for the workers of a host."""

    stats: RemoteMethod[[], WorkerStats]
    stop: RemoteMethod[[], None]


class BenchmarkedCoordinator(Protocol):
    """The run's coordinator, as far as the benchmark calls it."""

    train: RemoteMethod[[], object]
    add_worker: RemoteMethod[[str, VitalsHandle], None]
    remove_worker: RemoteMethod[[str], None]
    control: RemoteMethod[[str], None]
