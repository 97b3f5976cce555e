"""Which node and which devices each actor gets: arithmetic on a cluster's figures, nothing is asked or started.

shared     rank i and engine i take turns on one GPU
split      rank and engine have a share each of the only GPU
separate   each has its own: ranks from the first node on, close together; engines from the last node on, the GPUs of one
           engine on one node
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.nodes import Cluster

Cores = tuple[int, ...]
Sharing = Literal["none", "in turn", "split"]


@dataclass(frozen=True)
class ActorPlacement:
    """One actor's place. node: its index in the cluster, None where the cluster decides or has no room. cores: that it is pinned to.
    gpus: its GPUs on that node, which Ray may number otherwise."""

    node: int | None
    cores: Cores = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Seating:
    """engines, ranks: all that has to run at one time. joining: cores of the workers that may join later. more_engines: how many
    further ones have cores or GPUs left; None where neither limits them."""

    engines: tuple[ActorPlacement, ...]
    ranks: tuple[ActorPlacement, ...]
    sharing: Sharing
    joining: tuple[Cores, ...] = ()
    more_engines: int | None = None


def sharing(settings: RunSettings, cluster: Cluster) -> Sharing:
    """Whether an engine and a rank have a GPU in common."""
    if settings.placement.device == "cpu":
        return "none"
    if settings.placement.mode == "shared":
        return "in turn"
    alone = settings.rollout.workers.max == settings.learner.ranks == settings.rollout.tensor_parallel == 1
    return "split" if alone and cluster.gpus == 1 else "none"


def gpus_wanted(settings: RunSettings, cluster: Cluster) -> int:
    """GPUs that all that has to run at one time takes."""
    if settings.placement.device == "cpu":
        return 0
    if sharing(settings, cluster) != "none":
        return settings.learner.ranks
    return settings.learner.ranks + settings.rollout.workers.min * settings.rollout.tensor_parallel


def seat(settings: RunSettings, cluster: Cluster) -> Seating:
    """Everybody's place. On a cluster that is not known (no nodes) nobody's is."""
    workers, ranks = settings.rollout.workers, settings.learner.ranks
    shared = sharing(settings, cluster)
    if not cluster.nodes:
        return Seating(
            (ActorPlacement(None),) * workers.min,
            (ActorPlacement(None),) * ranks,
            shared,
            ((),) * (workers.max - workers.min),
        )
    if settings.placement.device == "cpu":
        return _on_cores(settings, cluster)
    capacities = [len(node.gpus) for node in cluster.nodes]
    if shared != "none":
        places = _numbered(_filled(capacities, ranks, 1), 1, [0] * len(capacities))
        return Seating(tuple(places[: workers.min]), tuple(places), shared, more_engines=0)
    per_engine = settings.rollout.tensor_parallel
    engine_nodes, rank_nodes, left = _side_by_side(capacities, workers.min, per_engine, ranks, 1)
    taken = [0] * len(capacities)
    rank_seats = _numbered(rank_nodes, 1, taken)
    engine_seats = _numbered(engine_nodes, per_engine, taken)
    more = sum(free // per_engine for free in left)
    return Seating(tuple(engine_seats), tuple(rank_seats), shared, ((),) * (workers.max - workers.min), more)


def _on_cores(settings: RunSettings, cluster: Cluster) -> Seating:
    """On this machine actors are pinned, going round where it has too few cores; a running cluster counts cores and pins nobody."""
    workers, threads = settings.rollout.workers, settings.rollout.engine_threads
    ranks, rank_threads = settings.learner.ranks, settings.learner.threads
    if not cluster.started_here:
        capacities = [len(node.cores) for node in cluster.nodes]
        engine_nodes, rank_nodes, left = _side_by_side(capacities, workers.min, threads, ranks, rank_threads)
        engines, learners = (
            tuple(ActorPlacement(node) for node in nodes) for nodes in (engine_nodes, rank_nodes)
        )
        return Seating(
            engines,
            learners,
            "none",
            ((),) * (workers.max - workers.min),
            sum(free // threads for free in left),
        )
    cores = cluster.nodes[0].cores
    before_ranks = 0 if settings.placement.mode == "shared" else workers.min * threads
    engines_here = _dealt(cores, workers.min, threads, 0)
    ranks_here = _dealt(cores, ranks, rank_threads, before_ranks)
    joining = _dealt(cores, workers.max - workers.min, threads, workers.min * threads + ranks * rank_threads)
    return Seating(
        tuple(ActorPlacement(0, hand) for hand in engines_here),
        tuple(ActorPlacement(0, hand) for hand in ranks_here),
        "none",
        tuple(joining),
    )


def _dealt(cores: Sequence[int], actors: int, threads: int, first: int) -> list[Cores]:
    starts = range(first, first + actors * threads, threads)
    return [
        tuple(sorted({cores[(start + turn) % len(cores)] for turn in range(threads)})) for start in starts
    ]


def _side_by_side(
    capacities: Sequence[int], engines: int, per_engine: int, ranks: int, per_rank: int
) -> tuple[list[int | None], list[int | None], list[int]]:
    """The nodes of engines and of ranks, and what is left on each node. Engines go first, since theirs is the larger piece."""
    reverse = _filled(capacities[::-1], engines, per_engine)
    engine_nodes = [None if node is None else len(capacities) - 1 - node for node in reverse]
    engine_nodes.sort(key=lambda node: len(capacities) if node is None else node)
    left = [room - per_engine * engine_nodes.count(node) for node, room in enumerate(capacities)]
    rank_nodes = _filled(left, ranks, per_rank)
    return (
        engine_nodes,
        rank_nodes,
        [room - per_rank * rank_nodes.count(node) for node, room in enumerate(left)],
    )


def _filled(capacities: Sequence[int], actors: int, each: int) -> list[int | None]:
    """The node of every actor: the first one with room for it; None for those that find none."""
    nodes: list[int | None] = []
    for node, room in enumerate(capacities):
        nodes += [node] * min(room // each, actors - len(nodes))
    return nodes + [None] * (actors - len(nodes))


def _numbered(nodes: Sequence[int | None], each: int, taken: list[int]) -> list[ActorPlacement]:
    """Seats with the next free GPUs of their nodes; counts them in `taken`."""
    seats = []
    for node in nodes:
        if node is None:
            seats.append(ActorPlacement(None))
        else:
            seats.append(ActorPlacement(node, gpus=tuple(range(taken[node], taken[node] + each))))
            taken[node] += each
    return seats
