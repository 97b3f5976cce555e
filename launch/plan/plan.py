"""The placement plan: which actor runs where and what it needs, from figures alone, before anything is allocated."""

from dataclasses import dataclass

from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import ModelShape
from dynalign.launch.plan.disk import checkpoint_size, checkpoints_kept, disk_parts
from dynalign.launch.plan.memory import (
    Part,
    Where,
    common_memory,
    engine_memory,
    learner_memory,
    precision_bytes,
)
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.placement import ActorPlacement, Cores, Seating, Sharing, seat
from dynalign.launch.plan.transport_choice import Transport, choose_transport


@dataclass(frozen=True)
class ActorPlan:
    """Alike actors. seats[i]: where actor i runs. gpus_per_actor: whole GPUs that one takes, 0 on a CPU. gpu_share: the share of its
    only GPU that is reserved for it, 1.0 for whole ones. memory: of one actor; its parts on a GPU are of each of its GPUs."""

    name: str
    seats: tuple[ActorPlacement, ...]
    gpus_per_actor: int
    gpu_share: float
    memory: tuple[Part, ...]

    @property
    def count(self) -> int:
        return len(self.seats)

    def bytes_on(self, where: Where) -> int:
        return sum(part.size_bytes for part in self.memory if part.where == where)


@dataclass(frozen=True)
class Bundle:
    """What a cluster has to reserve at one place, for the actors that live there."""

    actors: tuple[str, ...]
    cpus: int
    gpus: int


@dataclass(frozen=True)
class PlacementPlan:
    """rollout: the workers that must fit at one time, rollout.workers.min. joining: the cores of those that may join later, up to
    rollout.workers.max. more_engines: how many of these have a place now; None where only memory limits them. common: what a node has
    beside its actors. checkpoint: one of them, of which `checkpoints` are on the disk at one time. context_tokens: the longest context,
    answer included, that an engine is asked for. kv_tokens: what its cache holds."""

    settings: RunSettings
    shape: ModelShape
    cluster: Cluster
    context_tokens: int
    rollout: ActorPlan
    learner: ActorPlan
    sharing: Sharing
    joining: tuple[Cores, ...]
    more_engines: int | None
    common: tuple[Part, ...]
    transport: Transport
    checkpoint: Part
    checkpoints: int
    disk: tuple[Part, ...]
    kv_tokens: int

    def on(self, cluster: Cluster) -> "PlacementPlan":
        """The same run on a cluster that is known by now."""
        return plan(self.settings, self.shape, cluster, self.context_tokens)

    @property
    def nodes_used(self) -> tuple[int, ...]:
        """The nodes on which an actor has a place, by index."""
        places = (*self.rollout.seats, *self.learner.seats)
        return tuple(sorted({place.node for place in places if place.node is not None}))

    def host_bytes(self, node: int) -> int:
        """What all actors on a node and what belongs to none of them take of its memory at one time."""
        actors = sum(
            actor.bytes_on("host")
            for actor in (self.rollout, self.learner)
            for place in actor.seats
            if place.node == node
        )
        return actors + sum(part.size_bytes for part in self.common)

    def gpu_room(self, actor: ActorPlan) -> int | None:
        """What the smallest GPU under such an actor has for it, in bytes; None where that is not known. Actors that take turns have the
        whole GPU, each in its turn."""
        seated = [
            (self.cluster.nodes[place.node], gpu)
            for place in actor.seats
            if place.node is not None
            for gpu in place.gpus
        ]
        sizes = [node.gpus[gpu] for node, gpu in seated]
        if not sizes or 0 in sizes:
            return None
        return min(sizes) if self.sharing == "in turn" else int(min(sizes) * actor.gpu_share)

    def too_large(self, actor: ActorPlan) -> bool:
        """Its GPUs are known to have less memory than it takes."""
        room_bytes = self.gpu_room(actor)
        return room_bytes is not None and actor.bytes_on("gpu") > room_bytes

    @property
    def candidates_per_step(self) -> int:
        return self.settings.rollout.prompts_per_step * self.settings.rollout.group_size

    @property
    def completion_tokens_per_step(self) -> int:
        """At most."""
        return self.candidates_per_step * self.settings.rollout.max_completion_tokens

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The pinned cores by actor: `rollout-0`, `learner-0`, …, workers that may join included; unpinned actors are left out."""
        engines = [*(place.cores for place in self.rollout.seats), *self.joining]
        named = {f"rollout-{index}": cores for index, cores in enumerate(engines)}
        named |= {f"learner-{index}": place.cores for index, place in enumerate(self.learner.seats)}
        return {name: cores for name, cores in named.items() if cores}

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """What has to be reserved together, as near to each other as can be: GPUs of several ranks, each with the engine that takes
        turns on it. Empty: every actor is placed by itself."""
        if self.settings.placement.device == "cpu" or self.learner.count == 1:
            return ()
        paired = self.sharing != "none"
        threads = self.settings.learner.threads + (self.settings.rollout.engine_threads if paired else 0)
        return tuple(
            Bundle((f"learner-{rank}", *((f"rollout-{rank}",) if paired else ())), threads, 1)
            for rank in range(self.learner.count)
        )


def plan(settings: RunSettings, shape: ModelShape, cluster: Cluster, context_tokens: int) -> PlacementPlan:
    """The plan of a run on `cluster`; on one that is not known what each actor needs, but not where it lands.

    :param context_tokens: see `dynalign.rollout.judges.base.context_tokens`.
    """
    seating = seat(settings, cluster)
    transport = choose_transport(settings, seating.sharing, len(cluster.nodes) <= 1)
    made = _planned(settings, shape, cluster, context_tokens, seating, transport)
    if settings.weights.transport == "auto" and (
        made.too_large(made.rollout) or made.too_large(made.learner)
    ):
        lean = Transport(
            "object_store", f"a GPU has no room for a version to be sent from there by {transport.name}"
        )
        return (
            made
            if transport.name == lean.name
            else _planned(settings, shape, cluster, context_tokens, seating, lean)
        )
    return made


def _planned(
    settings: RunSettings,
    shape: ModelShape,
    cluster: Cluster,
    context_tokens: int,
    seating: Seating,
    transport: Transport,
) -> PlacementPlan:
    on_gpu = settings.placement.device == "gpu"
    engine_share = {"none": 1.0, "in turn": 0.5, "split": settings.placement.rollout_gpu_fraction}[
        seating.sharing
    ]
    rank_share = 1.0 if seating.sharing == "none" else 1.0 - engine_share
    engine_gpus = settings.rollout.tensor_parallel if on_gpu else 0
    staged, mapped = on_gpu and transport.name in ("ipc", "nccl"), transport.name == "shared_memory"
    return PlacementPlan(
        settings=settings,
        shape=shape,
        cluster=cluster,
        context_tokens=context_tokens,
        rollout=ActorPlan(
            "rollout",
            seating.engines,
            engine_gpus,
            engine_share,
            engine_memory(settings, shape, staged, not mapped),
        ),
        learner=ActorPlan(
            "learner", seating.ranks, 1 if on_gpu else 0, rank_share, learner_memory(settings, shape, staged)
        ),
        sharing=seating.sharing,
        joining=seating.joining,
        more_engines=seating.more_engines,
        common=common_memory(settings, shape, cluster.started_here, 2 if mapped else 1),
        transport=transport,
        checkpoint=checkpoint_size(settings, shape),
        checkpoints=checkpoints_kept(settings),
        disk=disk_parts(settings, shape),
        kv_tokens=_kv_tokens(settings, shape),
    )


def _kv_tokens(settings: RunSettings, shape: ModelShape) -> int:
    gpus = settings.rollout.tensor_parallel if settings.placement.device == "gpu" else 1
    per_token = shape.kv_bytes_per_token(precision_bytes(settings.rollout.dtype), gpus)
    block_bytes = per_token * settings.rollout.block_size
    return int(settings.rollout.kv_cache_gib * 2**30) // gpus // block_bytes * settings.rollout.block_size
