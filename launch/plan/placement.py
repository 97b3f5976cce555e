"""Which node and which devices each actor gets: arithmetic on figures; nothing is asked or started.

shared     rank i and engine i take turns on one GPU
split      rank and engine each have a share of the only GPU
separate   each has its own: ranks from the first node on, close together; engines from the last node on,
           all GPUs of one engine on one node

The engines of `judge.pool` have GPUs or cores of their own, of what the others leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.nodes import Cluster

Cores = tuple[int, ...]
"""Ids of the CPU cores that an actor is pinned to; empty where it is not pinned."""
Sharing = Literal["none", "in turn", "split"]
"""How an engine and a rank use one GPU: not at all, one after the other, each with a share of its memory."""


@dataclass(frozen=True)
class ActorPlacement:
    """Where one actor runs."""

    node: int | None
    """Index of the node in the cluster; None where the cluster decides, or has too little left."""
    cores: Cores = ()
    """Cores that the actor is pinned to."""
    gpus: tuple[int, ...] = ()
    """Its GPUs on that node. Ray may number them otherwise."""


@dataclass(frozen=True)
class Placement:
    """Where all actors run that must run at one time, and what is left for workers that join later."""

    engines: tuple[ActorPlacement, ...]
    """One per rollout worker, `rollout.workers.min` of them."""
    ranks: tuple[ActorPlacement, ...]
    """One per learner rank."""
    sharing: Sharing
    """Whether an engine and a rank have a GPU in common."""
    pool: tuple[ActorPlacement, ...] = ()
    """One per engine of `judge.pool`."""
    joining: tuple[Cores, ...] = ()
    """Cores of each worker that may join later."""
    more_engines: int | None = None
    """How many further engines the free cores or GPUs hold; None where neither limits them."""


def sharing(settings: RunSettings, cluster: Cluster) -> Sharing:
    """Whether an engine and a rank have a GPU in common."""
    if settings.placement.device == "cpu":
        return "none"
    if settings.placement.mode == "shared":
        return "in turn"
    alone = settings.rollout.workers.max == settings.learner.ranks == settings.rollout.tensor_parallel == 1
    return "split" if alone and cluster.gpus == 1 else "none"


def gpus_wanted(settings: RunSettings, cluster: Cluster) -> int:
    """How many GPUs a run needs at one time."""
    if settings.placement.device == "cpu":
        return 0
    pool = pool_engines(settings) * pool_share(settings)
    if sharing(settings, cluster) != "none":
        return settings.learner.ranks + pool
    return settings.learner.ranks + settings.rollout.workers.min * settings.rollout.tensor_parallel + pool


def pool_engines(settings: RunSettings) -> int:
    """Engines of `judge.pool`."""
    return 0 if settings.judge.pool is None else settings.judge.pool.engines


def pool_share(settings: RunSettings) -> int:
    """GPUs that one of them takes, or cores of a run on CPUs; 1 where there is none."""
    pool = settings.judge.pool
    if pool is None:
        return 1
    return pool.tensor_parallel if settings.placement.device == "gpu" else pool.engine_threads


def place_actors(settings: RunSettings, cluster: Cluster) -> Placement:
    """Assigns nodes and devices to all actors. On an unknown cluster (no nodes) every node is None."""
    workers = settings.rollout.workers
    ranks = settings.learner.ranks
    shared = sharing(settings, cluster)
    unpinned: tuple[Cores, ...] = ((),) * (workers.max - workers.min)
    if not cluster.nodes:
        nowhere = ActorPlacement(None)
        in_pool = (nowhere,) * pool_engines(settings)
        return Placement((nowhere,) * workers.min, (nowhere,) * ranks, shared, in_pool, unpinned)
    if settings.placement.device == "cpu":
        return _on_cores(settings, cluster)
    capacities = [len(node.gpus) for node in cluster.nodes]
    taken = [0] * len(capacities)
    if shared != "none":
        both = _numbered(_filled(capacities, ranks, 1), 1, taken)
        free = [each - used for each, used in zip(capacities, taken, strict=True)]
        pool_nodes, _ = _from_the_last(free, pool_engines(settings), pool_share(settings))
        in_pool = tuple(_numbered(pool_nodes, pool_share(settings), taken))
        return Placement(tuple(both[: workers.min]), tuple(both), shared, in_pool, more_engines=0)
    per_engine = settings.rollout.tensor_parallel
    engine_nodes, rank_nodes, left = _side_by_side(capacities, workers.min, per_engine, ranks, 1)
    pool_nodes, left = _from_the_last(left, pool_engines(settings), pool_share(settings))
    # Ranks first: they get the lower GPU numbers of a node that both are on.
    rank_placements = tuple(_numbered(rank_nodes, 1, taken))
    engine_placements = tuple(_numbered(engine_nodes, per_engine, taken))
    in_pool = tuple(_numbered(pool_nodes, pool_share(settings), taken))
    more = sum(each // per_engine for each in left)
    return Placement(engine_placements, rank_placements, shared, in_pool, unpinned, more)


def _on_cores(settings: RunSettings, cluster: Cluster) -> Placement:
    """Pins actors on this machine, starting over where it has too few cores.

    Actors on a running cluster are not pinned: it only counts cores.
    """
    workers = settings.rollout.workers
    threads = settings.rollout.engine_threads
    ranks = settings.learner.ranks
    rank_threads = settings.learner.threads
    if not cluster.started_here:
        capacities = [len(node.cores) for node in cluster.nodes]
        engine_nodes, rank_nodes, left = _side_by_side(capacities, workers.min, threads, ranks, rank_threads)
        pool_nodes, left = _from_the_last(left, pool_engines(settings), pool_share(settings))
        return Placement(
            tuple(ActorPlacement(node) for node in engine_nodes),
            tuple(ActorPlacement(node) for node in rank_nodes),
            "none",
            tuple(ActorPlacement(node) for node in pool_nodes),
            ((),) * (workers.max - workers.min),
            sum(free // threads for free in left),
        )
    cores = cluster.nodes[0].cores
    before_ranks = 0 if settings.placement.mode == "shared" else workers.min * threads
    engine_cores = _dealt(cores, workers.min, threads, 0)
    rank_cores = _dealt(cores, ranks, rank_threads, before_ranks)
    before_pool = workers.min * threads + ranks * rank_threads
    pool_cores = _dealt(cores, pool_engines(settings), pool_share(settings), before_pool)
    before_joining = before_pool + pool_engines(settings) * pool_share(settings)
    joining = _dealt(cores, workers.max - workers.min, threads, before_joining)
    return Placement(
        tuple(ActorPlacement(0, pinned) for pinned in engine_cores),
        tuple(ActorPlacement(0, pinned) for pinned in rank_cores),
        "none",
        tuple(ActorPlacement(0, pinned) for pinned in pool_cores),
        tuple(joining),
    )


def _dealt(cores: Sequence[int], actors: int, threads: int, first: int) -> list[Cores]:
    """`threads` neighbouring cores per actor, from index `first` on, starting over at the end."""
    starts = range(first, first + actors * threads, threads)
    return [
        tuple(sorted({cores[(start + turn) % len(cores)] for turn in range(threads)})) for start in starts
    ]


def _side_by_side(
    capacities: Sequence[int], engines: int, per_engine: int, ranks: int, per_rank: int
) -> tuple[list[int | None], list[int | None], list[int]]:
    """The nodes of engines and of ranks, and what is left on each node.

    Engines are placed first: they need the larger piece.
    """
    engine_nodes, beside = _from_the_last(capacities, engines, per_engine)
    rank_nodes = _filled(beside, ranks, per_rank)
    left = [free - per_rank * rank_nodes.count(node) for node, free in enumerate(beside)]
    return engine_nodes, rank_nodes, left


def _from_the_last(capacities: Sequence[int], engines: int, each: int) -> tuple[list[int | None], list[int]]:
    """The nodes of engines, from the last node on, and what is left on each node."""
    reverse = _filled(capacities[::-1], engines, each)
    nodes = [None if node is None else len(capacities) - 1 - node for node in reverse]
    nodes.sort(key=lambda node: len(capacities) if node is None else node)
    return nodes, [free - each * nodes.count(node) for node, free in enumerate(capacities)]


def _filled(capacities: Sequence[int], actors: int, each: int) -> list[int | None]:
    """The node of every actor: the first one with `each` left; None for actors that no node can hold."""
    nodes: list[int | None] = []
    for node, free in enumerate(capacities):
        nodes += [node] * min(free // each, actors - len(nodes))
    return nodes + [None] * (actors - len(nodes))


def _numbered(nodes: Sequence[int | None], each: int, taken: list[int]) -> list[ActorPlacement]:
    """Gives each actor the next `each` free GPUs of its node, and counts them in `taken`."""
    placements = []
    for node in nodes:
        if node is None:
            placements.append(ActorPlacement(None))
        else:
            placements.append(ActorPlacement(node, gpus=tuple(range(taken[node], taken[node] + each))))
            taken[node] += each
    return placements
