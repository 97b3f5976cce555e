"""The placement plan: which actor runs where and what it needs, from figures alone, before anything is allocated."""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import Mistake
from configs.schema import RunSettings
from launch.machine import Machine
from launch.memory import Part, Where, checkpoint_size, common_memory, engine_memory, gigabytes, learner_memory, precision_bytes
from launch.model_shape import ModelShape

Cores = tuple[tuple[int, ...], ...]
Gpus = tuple[int | None, ...]


@dataclass(frozen=True)
class ActorPlan:
    """Alike actors. cores[i]: the cores that actor i is pinned to, empty for unpinned. gpus[i]: the index of its GPU, None without.
    gpu_share: the share of that GPU that is reserved for it. memory: of one actor."""

    name: str
    cores: Cores
    gpus: Gpus
    gpu_share: float
    memory: tuple[Part, ...]

    @property
    def count(self) -> int:
        return len(self.cores)

    def bytes_on(self, where: Where) -> int:
        return sum(part.size_bytes for part in self.memory if part.where == where)


@dataclass(frozen=True)
class PlacementPlan:
    """machine: None where a cluster that is already running decides. checkpoint: one of them, of which `checkpoints` are on the disk
    at one time: those that are kept, and the one being written. context_tokens: the longest context, answer included, that an engine is
    asked for. kv_tokens: what its cache holds."""

    settings: RunSettings
    shape: ModelShape
    machine: Machine | None
    context_tokens: int
    rollout: ActorPlan
    learner: ActorPlan
    common: tuple[Part, ...]
    checkpoint: Part
    checkpoints: int
    kv_tokens: int

    @property
    def host_bytes(self) -> int:
        """What all actors take of the host's memory at one time."""
        actors = sum(actor.count * actor.bytes_on("host") for actor in (self.rollout, self.learner))
        return actors + sum(part.size_bytes for part in self.common)

    @property
    def candidates_per_step(self) -> int:
        return self.settings.rollout.prompts_per_step * self.settings.rollout.group_size

    @property
    def completion_tokens_per_step(self) -> int:
        """At most."""
        return self.candidates_per_step * self.settings.rollout.max_completion_tokens

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The pinned cores by actor: `rollout-0`, `learner-0`, …; unpinned actors are left out."""
        named = ((actor.name, index, cores) for actor in (self.rollout, self.learner) for index, cores in enumerate(actor.cores))
        return {f"{name}-{index}": cores for name, index, cores in named if cores}


def plan(settings: RunSettings, shape: ModelShape, machine: Machine | None, context_tokens: int) -> PlacementPlan:
    """The plan of a run on `machine`, or on a running cluster (None): then what each actor needs, but not where it lands.

    :param context_tokens: see `rollout.judge.context_tokens`.
    """
    engine_cores, rank_cores = _cores(settings, machine)
    engine_gpus, rank_gpus = _gpus(settings, len(machine.gpus) if machine else 0)
    engine_share, rank_share = 1.0, 1.0
    if set(engine_gpus) & set(rank_gpus) - {None}:
        engine_share = 0.5 if settings.placement.mode == "shared" else settings.placement.rollout_gpu_fraction
        rank_share = 1.0 - engine_share
    block_bytes = shape.kv_bytes_per_token(precision_bytes(settings.rollout.dtype)) * settings.rollout.block_size
    return PlacementPlan(
        settings=settings,
        shape=shape,
        machine=machine,
        context_tokens=context_tokens,
        rollout=ActorPlan("rollout", engine_cores, engine_gpus, engine_share, engine_memory(settings, shape)),
        learner=ActorPlan("learner", rank_cores, rank_gpus, rank_share, learner_memory(settings, shape)),
        common=common_memory(settings, shape, own_cluster=machine is not None),
        checkpoint=checkpoint_size(settings, shape),
        checkpoints=settings.checkpoint.keep_last + 1,
        kv_tokens=int(settings.rollout.kv_cache_gib * 2**30) // block_bytes * settings.rollout.block_size,
    )


def _cores(settings: RunSettings, machine: Machine | None) -> tuple[Cores, Cores]:
    """Cores of each engine and each rank: their own while the machine has enough, then going round. Where engines and ranks take
    turns, both begin at the first core. Actors with a GPU are not pinned: their work is elsewhere."""
    engines = [settings.rollout.engine_threads] * settings.rollout.workers.max
    ranks = [settings.learner.threads] * settings.learner.ranks
    if machine is None or settings.placement.device == "gpu":
        return ((),) * len(engines), ((),) * len(ranks)
    first_rank_core = 0 if settings.placement.mode == "shared" else sum(engines)
    return _dealt(machine.cores, engines, 0), _dealt(machine.cores, ranks, first_rank_core)


def _dealt(cores: Sequence[int], wanted: Sequence[int], first: int) -> Cores:
    hands = []
    for number in wanted:
        hands.append(tuple(sorted({cores[(first + turn) % len(cores)] for turn in range(number)})))
        first += number
    return tuple(hands)


def _gpus(settings: RunSettings, present: int) -> tuple[Gpus, Gpus]:
    """GPUs of each engine and each rank, one each. `shared` pairs engine i with rank i; `separate` splits a machine's only GPU."""
    workers, ranks = settings.rollout.workers.max, settings.learner.ranks
    if settings.placement.device == "cpu":
        return (None,) * workers, (None,) * ranks
    split = present == workers == ranks == 1
    first_rank_gpu = 0 if split or settings.placement.mode == "shared" else workers
    return tuple(range(workers)), tuple(range(first_rank_gpu, first_rank_gpu + ranks))


def refusals(plan: PlacementPlan) -> list[Mistake]:
    """Why the plan cannot be carried out, each with the figure that does not fit. Empty: it fits, as far as figures can tell."""
    mistakes = _context_refusals(plan) if plan.settings.rollout.engine == "vllm" else []
    if plan.machine is None:
        return mistakes
    return mistakes + _memory_refusals(plan, plan.machine.memory_bytes) + _gpu_refusals(plan, plan.machine.gpus)


def _context_refusals(plan: PlacementPlan) -> list[Mistake]:
    """vLLM does not start if one longest context does not fit its cache, or the model."""
    needed, positions = plan.context_tokens, plan.shape.positions
    made_of = "prompts.max_tokens and rollout.max_completion_tokens"
    if plan.settings.judge.kind != "function":
        made_of = "the judge's text, prompts.max_tokens, twice rollout.max_completion_tokens, and the verdict"
    mistakes = []
    if plan.kv_tokens < needed:
        rule = f"the cache holds {plan.kv_tokens:,} tokens, and one context can have {needed:,} ({made_of})"
        mistakes.append(Mistake("rollout.kv_cache_gib", plan.settings.rollout.kv_cache_gib, rule, "set it higher"))
    if 0 < positions < needed:
        rule = f"its contexts end at {positions:,} tokens, and one can have {needed:,} ({made_of})"
        mistakes.append(Mistake("model", plan.settings.model, rule, "lower these, or take a model with longer contexts"))
    return mistakes


def _memory_refusals(plan: PlacementPlan, free_bytes: int) -> list[Mistake]:
    mistakes = []
    store_gib = plan.settings.placement.object_store_gib
    version_bytes = plan.shape.parameters * precision_bytes(plan.settings.rollout.dtype)
    if 2 * version_bytes > store_gib * 2**30:
        rule = f"two weight versions of {gigabytes(version_bytes)} each are alive at one time"
        remedy = f"set placement.object_store_gib={2 * version_bytes // 2**30 + 1} or more"
        mistakes.append(Mistake("placement.object_store_gib", store_gib, rule, remedy))
    if plan.host_bytes > free_bytes:
        largest = _largest([*plan.rollout.memory, *plan.learner.memory, *plan.common], "host")
        rule = f"the plan needs {gigabytes(plan.host_bytes)}, most of it for {largest.name} ({largest.formula})"
        remedy = "lower learner.token_budget, rollout.kv_cache_gib or rollout.workers, or take a smaller model"
        mistakes.append(Mistake("memory", f"{gigabytes(free_bytes)} free", rule, remedy))
    return mistakes


def missing_gpus(settings: RunSettings, gpus: tuple[int, ...]) -> list[Mistake]:
    """The mistake of a run that needs more GPUs than this machine has."""
    engines, ranks, mode = settings.rollout.workers.max, settings.learner.ranks, settings.placement.mode
    engine_gpus, rank_gpus = _gpus(settings, len(gpus))
    needed = len({*engine_gpus, *rank_gpus} - {None})
    if needed <= len(gpus):
        return []
    rule = f"rollout.workers={engines}, learner.ranks={ranks}, placement.mode={mode} take {needed} GPUs, and this machine has {len(gpus)}"
    remedy = "set RAY_ADDRESS to a cluster that has them, lower rollout.workers and learner.ranks, or set placement.device=cpu"
    return [Mistake("placement.device", settings.placement.device, rule, remedy)]


def _gpu_refusals(plan: PlacementPlan, gpus: tuple[int, ...]) -> list[Mistake]:
    if missing := missing_gpus(plan.settings, gpus):
        return missing
    remedies = {
        "rollout": "lower rollout.kv_cache_gib, or take a smaller model",
        "learner": "lower learner.token_budget, set learner.gradient_checkpointing=true, learner.lora={}, or zero_stage 3 with more ranks",
    }
    mistakes = []
    for actor in (plan.rollout, plan.learner):
        # Actors that take turns have the whole GPU, each in its turn.
        share = 1.0 if plan.settings.placement.mode == "shared" else actor.gpu_share
        room_bytes = min((int(gpus[gpu] * share) for gpu in actor.gpus if gpu is not None), default=0)
        needed_bytes = actor.bytes_on("gpu")
        if needed_bytes > room_bytes:
            largest = _largest(actor.memory, "gpu")
            rule = f"it needs {gigabytes(needed_bytes)} of a GPU, most of it for {largest.name} ({largest.formula})"
            mistakes.append(Mistake(f"GPU memory of one {actor.name} actor", gigabytes(room_bytes), rule, remedies[actor.name]))
    return mistakes


def _largest(parts: Sequence[Part], where: Where) -> Part:
    return max((part for part in parts if part.where == where), key=lambda part: part.size_bytes)
