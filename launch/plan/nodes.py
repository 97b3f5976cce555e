"""A cluster as data: what its nodes have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    `Node("gpu-a", cores=(0, 1, 2, 3), memory_bytes=64 * 10**9, gpus=(80 * 10**9, 80 * 10**9))`
    """

    name: str
    """Host name, or `this machine`."""
    cores: tuple[int, ...]
    """Ids of the CPU cores that may be used."""
    memory_bytes: int
    """Free host memory."""
    gpus: tuple[int, ...] = ()
    """Memory of each GPU in bytes; 0 where it is unknown."""
    object_store_bytes: int | None = None
    """Capacity of Ray's object store; None where the driver starts one."""
    amx: bool = True
    """Whether the cores have Intel's matrix units; True where that is unknown."""
    bfloat16: bool = True
    """Whether the cores have instructions for bfloat16; True where that is unknown."""
    total_bytes: int = 0
    """Host memory, or the container's limit; 0 where it is unknown."""
    kill_share: float | None = None
    """The share of it above which Ray's memory monitor kills actors; None where it kills none, or where
    that is unknown."""

    @property
    def headroom_bytes(self) -> int | None:
        """Memory that may be taken before Ray's memory monitor kills actors; None where it kills none."""
        if self.kill_share is None or not self.total_bytes:
            return None
        return int(self.memory_bytes - (1.0 - self.kill_share) * self.total_bytes)


@dataclass(frozen=True)
class Cluster:
    """The nodes that a run may use."""

    nodes: tuple[Node, ...] = ()
    """Empty for a running cluster that was not asked yet."""
    started_here: bool = False
    """Whether the driver starts this cluster on its own machine."""

    @property
    def gpus(self) -> int:
        """GPUs on all nodes."""
        return sum(len(node.gpus) for node in self.nodes)

    @property
    def cores(self) -> int:
        """CPU cores on all nodes."""
        return sum(len(node.cores) for node in self.nodes)


UNKNOWN = Cluster()
"""A running cluster that was not asked what it has."""


def from_ray(rows: Iterable[Mapping[str, Any]]) -> Cluster:
    """The living nodes of `ray.nodes()`, with all that they offer to Ray, including what other jobs use.

    GPU memory is unknown: Ray counts GPUs only.
    """
    nodes = []
    for row in rows:
        if row.get("Alive"):
            resources = row["Resources"]
            nodes.append(
                Node(
                    name=str(row["NodeManagerHostname"] or row["NodeManagerAddress"]),
                    cores=tuple(range(int(resources.get("CPU", 0)))),
                    memory_bytes=int(resources.get("memory", 0)),
                    gpus=(0,) * int(resources.get("GPU", 0)),
                    object_store_bytes=int(resources.get("object_store_memory", 0)),
                )
            )
    return Cluster(tuple(nodes))
