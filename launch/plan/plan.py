"""The placement plan: which actor runs where and what it needs.

It is computed from figures alone, before anything is allocated.
"""

from dataclasses import dataclass

from dynalign.actors.pool.names import POOL
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import ModelShape
from dynalign.launch.plan.disk import checkpoint_size, checkpoints_kept, disk_parts
from dynalign.launch.plan.memory import (
    Part,
    Where,
    common_memory,
    engine_memory,
    learner_memory,
    pool_memory,
    precision_bytes,
)
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.placement import ActorPlacement, Cores, Placement, Sharing, place_actors
from dynalign.launch.plan.transport_choice import Transport, choose_transport
from dynalign.rollout.engine.base import EngineSettings


@dataclass(frozen=True)
class ActorPlan:
    """Actors of one kind: where each runs, and what one needs."""

    name: str
    """`rollout`, `learner` or `judge`."""
    placements: tuple[ActorPlacement, ...]
    """`placements[i]` is where actor i runs."""
    gpus_per_actor: int
    """Whole GPUs that one actor takes; 0 on a CPU."""
    gpu_share: float
    """The share of its only GPU that is reserved for an actor; 1.0 for whole GPUs."""
    memory: tuple[Part, ...]
    """Of one actor. Its parts on a GPU are those of each of its GPUs. Some are of the first actor alone."""

    @property
    def count(self) -> int:
        """Actors of this kind that must run at one time."""
        return len(self.placements)

    def bytes_on(self, where: Where) -> int:
        """Memory of one actor on the host or on each of its GPUs."""
        return sum(part.size_bytes for part in self.memory if part.where == where)


@dataclass(frozen=True)
class Bundle:
    """What a cluster reserves on one node for actors that run together.

    `Bundle(("learner-0", "rollout-0"), cpus=4, gpus=1)`
    """

    actors: tuple[str, ...]
    """Their names."""
    cpus: int
    """CPU cores for all of them."""
    gpus: int
    """GPUs for all of them."""


@dataclass(frozen=True)
class PlacementPlan:
    """Which actor runs where, what each needs of memory and disk, and how weights travel."""

    settings: RunSettings
    """The settings that were planned for."""
    shape: ModelShape
    """The model's figures."""
    cluster: Cluster
    """What was planned on; without nodes where it is unknown."""
    context_tokens: int
    """The longest context, answer included, that an engine is asked for."""
    judge_tokens: int
    """The longest question of the run's judges, answer included."""
    rollout: ActorPlan
    """The `rollout.workers.min` workers that must fit at one time."""
    learner: ActorPlan
    """The learner ranks."""
    pool: ActorPlan | None
    """The engines of `judge.pool`; None without it."""
    pool_shape: ModelShape
    """The figures of the pool's model: the policy's, unless the pool names another one."""
    pool_kv_tokens: int
    """Tokens that the key-value cache of one of its engines holds; 0 without it."""
    sharing: Sharing
    """Whether an engine and a rank have a GPU in common."""
    joining: tuple[Cores, ...]
    """Cores of each worker that may join later, up to `rollout.workers.max`."""
    more_engines: int | None
    """How many of those the free cores or GPUs hold now; None where only memory limits them."""
    common: tuple[Part, ...]
    """What a node needs beside its actors."""
    transport: Transport
    """How a weight version reaches the engines."""
    checkpoint: Part
    """The size of one checkpoint."""
    checkpoints: int
    """How many are on the disk at one time."""
    disk: tuple[Part, ...]
    """What the run folder needs of its disk."""
    kv_tokens: int
    """Tokens that the key-value cache of one engine holds."""

    def on(self, cluster: Cluster) -> "PlacementPlan":
        """Plans the same run on another cluster, once it is known."""
        return plan(
            self.settings, self.shape, cluster, self.context_tokens, self.pool_shape, self.judge_tokens
        )

    @property
    def actors(self) -> tuple[ActorPlan, ...]:
        """All kinds of actors that compute."""
        return (self.rollout, self.learner) if self.pool is None else (self.rollout, self.learner, self.pool)

    @property
    def pool_context_tokens(self) -> int:
        """The longest context that an engine of `judge.pool` holds, answer included."""
        pool = self.settings.judge.pool
        return self.judge_tokens if pool is None or pool.context_tokens is None else pool.context_tokens

    @property
    def nodes_used(self) -> tuple[int, ...]:
        """Indices of the nodes that run an actor, ascending."""
        nodes = {placement.node for actor in self.actors for placement in actor.placements}
        return tuple(sorted(node for node in nodes if node is not None))

    def host_bytes(self, node: int) -> int:
        """Memory that all actors of a node and the common parts take of it at one time."""
        actors = sum(
            part.size_bytes
            for actor in self.actors
            for index, placement in enumerate(actor.placements)
            for part in actor.memory
            if placement.node == node and part.where == "host" and (index == 0 or not part.of_the_first)
        )
        return actors + sum(part.size_bytes for part in self.common)

    def gpu_memory_bytes(self, actor: ActorPlan) -> int | None:
        """What the smallest GPU under such an actor has for it; None where that is unknown.

        Actors that take turns each have the whole GPU.
        """
        used = [
            (self.cluster.nodes[placement.node], gpu)
            for placement in actor.placements
            if placement.node is not None
            for gpu in placement.gpus
        ]
        sizes = [node.gpus[gpu] for node, gpu in used]
        if not sizes or 0 in sizes:
            return None
        return min(sizes) if self.sharing == "in turn" else int(min(sizes) * actor.gpu_share)

    def too_large(self, actor: ActorPlan) -> bool:
        """Whether a GPU is known to have less memory than such an actor takes."""
        available_bytes = self.gpu_memory_bytes(actor)
        return available_bytes is not None and actor.bytes_on("gpu") > available_bytes

    @property
    def candidates_per_step(self) -> int:
        """Completions that one step trains on."""
        return self.settings.rollout.prompts_per_step * self.settings.rollout.group_size

    @property
    def completion_tokens_per_step(self) -> int:
        """The most tokens that the candidates of one step can have."""
        return self.candidates_per_step * self.settings.rollout.max_completion_tokens

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The pinned cores by actor: `rollout-0`, `learner-0`, …

        Workers that may join are included; actors that are not pinned are left out.
        """
        engines = [*(placement.cores for placement in self.rollout.placements), *self.joining]
        ranks = [placement.cores for placement in self.learner.placements]
        named = {f"rollout-{index}": cores for index, cores in enumerate(engines)}
        named |= {f"learner-{index}": cores for index, cores in enumerate(ranks)}
        if self.pool is not None:
            in_pool = enumerate(self.pool.placements)
            named |= {f"{self.pool.name}-{index}": placement.cores for index, placement in in_pool}
        return {name: cores for name, cores in named.items() if cores}

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """What the cluster reserves together, as close as possible: a GPU per rank, and its engine if shared.

        Empty where every actor is placed by itself.
        """
        if self.settings.placement.device == "cpu" or self.learner.count == 1:
            return ()
        paired = self.sharing != "none"
        threads = self.settings.learner.threads + (self.settings.rollout.engine_threads if paired else 0)
        return tuple(
            Bundle((f"learner-{rank}", *((f"rollout-{rank}",) if paired else ())), threads, 1)
            for rank in range(self.learner.count)
        )


def plan(
    settings: RunSettings,
    shape: ModelShape,
    cluster: Cluster,
    context_tokens: int,
    pool_shape: ModelShape | None = None,
    judge_tokens: int | None = None,
) -> PlacementPlan:
    """The plan of a run on `cluster`. On an unknown one it says what each actor needs, but not where it runs.

    context_tokens: the longest context, from `dynalign.rollout.judges.base.context_tokens`. pool_shape: of
    the model of `judge.pool`; None: the policy's. judge_tokens: the longest question that judges ask, from
    `dynalign.rollout.judges.base.judge_tokens`; None: as long as the longest context.
    """
    shapes = (shape, pool_shape or shape)
    placement = place_actors(settings, cluster)
    transport = choose_transport(settings, placement.sharing, len(cluster.nodes) <= 1)
    contexts = (context_tokens, judge_tokens or context_tokens)
    made = _planned(settings, shapes, cluster, contexts, placement, transport)
    if settings.weights.transport != "auto" or transport.name == "object_store":
        return made
    if not (made.too_large(made.rollout) or made.too_large(made.learner)):
        return made
    reason = f"a GPU has no room for a version to be sent from there by {transport.name}"
    return _planned(settings, shapes, cluster, contexts, placement, Transport("object_store", reason))


def _planned(
    settings: RunSettings,
    shapes: tuple[ModelShape, ModelShape],
    cluster: Cluster,
    contexts: tuple[int, int],
    placement: Placement,
    transport: Transport,
) -> PlacementPlan:
    """shapes: of the policy, and of the pool's model. contexts: the longest of an engine, and of a judge."""
    shape, pool_shape = shapes
    on_gpu = settings.placement.device == "gpu"
    engine_shares = {"none": 1.0, "in turn": 0.5, "split": settings.placement.rollout_gpu_fraction}
    engine_share = engine_shares[placement.sharing]
    rank_share = 1.0 if placement.sharing == "none" else 1.0 - engine_share
    engine_gpus = settings.rollout.tensor_parallel if on_gpu else 0
    staged = on_gpu and transport.name in ("ipc", "nccl")
    mapped = transport.name == "shared_memory"
    engine_parts = engine_memory(settings, shape, staged, not mapped)
    rank_parts = learner_memory(settings, shape, staged)
    return PlacementPlan(
        settings=settings,
        shape=shape,
        cluster=cluster,
        context_tokens=contexts[0],
        judge_tokens=contexts[1],
        rollout=ActorPlan("rollout", placement.engines, engine_gpus, engine_share, engine_parts),
        learner=ActorPlan("learner", placement.ranks, 1 if on_gpu else 0, rank_share, rank_parts),
        pool=_pool(settings, pool_shape, placement),
        pool_shape=pool_shape,
        pool_kv_tokens=kv_tokens_of(settings.judge.pool, on_gpu, pool_shape) if settings.judge.pool else 0,
        sharing=placement.sharing,
        joining=placement.joining,
        more_engines=placement.more_engines,
        common=common_memory(settings, shape, cluster.started_here, 2 if mapped else 1),
        transport=transport,
        checkpoint=checkpoint_size(settings, shape),
        checkpoints=checkpoints_kept(settings),
        disk=disk_parts(settings, shape),
        kv_tokens=kv_tokens_of(settings.rollout, on_gpu, shape),
    )


def _pool(settings: RunSettings, shape: ModelShape, placement: Placement) -> ActorPlan | None:
    pool = settings.judge.pool
    if pool is None:
        return None
    on_gpu = settings.placement.device == "gpu"
    gpus = pool.tensor_parallel if on_gpu else 0
    return ActorPlan(POOL, placement.pool, gpus, 1.0, pool_memory(pool, on_gpu, shape))


def kv_tokens_of(engine: EngineSettings, on_gpu: bool, shape: ModelShape) -> int:
    """Whole blocks that fit into the engine's cache, in tokens: vLLM hands the cache out in blocks."""
    gpus = engine.tensor_parallel if on_gpu else 1
    per_token = shape.kv_bytes_per_token(precision_bytes(engine.dtype), gpus)
    return int(engine.kv_cache_gib * 2**30) // gpus // (per_token * engine.block_size) * engine.block_size
