"""A cluster as data: what its nodes have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """cores: ids of the CPU cores that may be used. memory_bytes: free host memory. gpus: memory of each GPU in bytes, 0 where unknown.
    object_store_bytes: of Ray's object store; None where the driver starts one. amx: its cores have Intel's matrix units; True where
    unknown."""

    name: str
    cores: tuple[int, ...]
    memory_bytes: int
    gpus: tuple[int, ...] = ()
    object_store_bytes: int | None = None
    amx: bool = True


@dataclass(frozen=True)
class Cluster:
    """nodes: empty where it is running and was not asked yet. started_here: one that the driver starts in this machine."""

    nodes: tuple[Node, ...] = ()
    started_here: bool = False

    @property
    def gpus(self) -> int:
        return sum(len(node.gpus) for node in self.nodes)

    @property
    def cores(self) -> int:
        return sum(len(node.cores) for node in self.nodes)


UNKNOWN = Cluster()
"""A running cluster that was not asked what it has."""


def from_ray(rows: Iterable[Mapping[str, Any]]) -> Cluster:
    """The living nodes of `ray.nodes()`, with what they offer to Ray in all (what others use of it included). Ray counts GPUs and does
    not tell their memory."""
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
