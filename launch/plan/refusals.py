"""Why a plan cannot be carried out, each reason with the figure that does not fit."""

from collections.abc import Sequence

from dynalign.actors.pool.names import POOL
from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.memory import Part, Where, gigabytes, size, version_bytes
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.placement import gpus_wanted, pool_engines, pool_share
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.plan.pool_refusals import pool_refusals, unplaced_in_pool
from dynalign.launch.plan.transport_choice import transport_mistakes
from dynalign.rollout.judges.base import asks_engine

_GPU_REMEDIES = {
    "rollout": "lower rollout.kv_cache_gib, set rollout.tensor_parallel higher, or take a smaller model",
    "learner": (
        "lower learner.token_budget, set learner.gradient_checkpointing=true, learner.lora={}, "
        "or zero_stage 3 with more ranks"
    ),
    POOL: (
        "lower judge.pool.kv_cache_gib, set judge.pool.tensor_parallel higher, or give it a smaller model"
    ),
}


def refusals(plan: PlacementPlan) -> list[Mistake]:
    """Why a plan does not fit; empty where it does, as far as figures can tell.

    On an unknown cluster, only what no cluster could hold is refused.
    """
    mistakes = transport_mistakes(plan.settings, plan.sharing)
    if plan.settings.rollout.engine == "vllm":
        mistakes += [*_context_refusals(plan), *_model_refusals(plan)]
    mistakes += pool_refusals(plan)
    if not plan.cluster.nodes:
        return mistakes
    return mistakes + cluster_refusals(plan, plan.cluster)


def cluster_refusals(plan: PlacementPlan, cluster: Cluster) -> list[Mistake]:
    """Why `cluster` cannot hold the run: figures that more or larger nodes would change."""
    here = plan if plan.cluster == cluster else plan.on(cluster)
    if lacking := shortage(here.settings, cluster) or _unplaced(here) or unplaced_in_pool(here):
        return lacking
    return [*_store_refusals(here), *_host_refusals(here), *_gpu_refusals(here)]


def shortage(settings: RunSettings, cluster: Cluster) -> list[Mistake]:
    """The mistake of a run that needs more GPUs, or more cores of a running cluster, than there are."""
    workers = settings.rollout.workers.min
    ranks = settings.learner.ranks
    tensor_parallel = settings.rollout.tensor_parallel
    nodes = f"the cluster's {len(cluster.nodes)} nodes have" if len(cluster.nodes) > 1 else "the cluster has"
    has = "this machine has" if cluster.started_here else nodes
    taken = f"rollout.workers.min={workers}, learner.ranks={ranks}"
    pool = f", judge.pool.engines={pool_engines(settings)}" if pool_engines(settings) else ""
    if settings.placement.device == "gpu":
        what = "GPU"
        needed = gpus_wanted(settings, cluster)
        there = cluster.gpus
        taken += f", rollout.tensor_parallel={tensor_parallel}" if tensor_parallel > 1 else ""
        taken += f"{pool}, placement.mode={settings.placement.mode}"
    elif cluster.started_here:
        return []
    else:
        what = "core"
        needed = workers * settings.rollout.engine_threads + ranks * settings.learner.threads
        needed += pool_engines(settings) * pool_share(settings)
        taken += pool
        there = cluster.cores
    if needed <= there:
        return []
    elsewhere = "set RAY_ADDRESS to a cluster that has them, " if cluster.started_here else "add nodes, "
    on_cpu = ", or set placement.device=cpu" if what == "GPU" else ""
    rule = f"{taken} take {needed} {what}{'s' if needed > 1 else ''}, and {has} {there}"
    smaller = "rollout.workers, learner.ranks and judge.pool.engines"
    lower = smaller if pool else "rollout.workers and learner.ranks"
    remedy = f"{elsewhere}lower {lower}{on_cpu}"
    return [Mistake("placement.device", settings.placement.device, rule, remedy)]


def _unplaced(plan: PlacementPlan) -> list[Mistake]:
    """The mistake of a run whose engines do not fit, although the cluster as a whole has enough."""
    missing = [placement for placement in plan.rollout.placements if placement.node is None]
    if not missing and all(placement.node is not None for placement in plan.learner.placements):
        return []
    if plan.settings.placement.device == "gpu":
        setting = "rollout.tensor_parallel"
        value = plan.settings.rollout.tensor_parallel
        what = "GPUs"
        per_node = [len(node.gpus) for node in plan.cluster.nodes]
    else:
        setting = "rollout.engine_threads"
        value = plan.settings.rollout.engine_threads
        what = "cores"
        per_node = [len(node.cores) for node in plan.cluster.nodes]
    without = f"{len(missing)} of {plan.rollout.count} engines find a place on none"
    rule = f"the {what} of one engine are on one node; nodes have at most {max(per_node)}, and {without}"
    return [Mistake(setting, value, rule, f"set {setting} lower, or add nodes with {value} free {what}")]


def _context_refusals(plan: PlacementPlan) -> list[Mistake]:
    """The mistakes of a longest context that the cache or the model cannot hold: vLLM would not start."""
    needed = plan.context_tokens
    positions = plan.shape.positions
    made_of = "prompts.max_tokens and rollout.max_completion_tokens"
    if asks_engine(plan.settings):
        made_of = "the judge's text, prompts.max_tokens, twice rollout.max_completion_tokens, and the verdict"
    if asks_engine(plan.settings) and plan.settings.judge.kind == "ranked":
        made_of += ", for rollout.group_size candidates at once"
    mistakes = []
    if plan.kv_tokens < needed:
        rule = f"the cache holds {plan.kv_tokens:,} tokens, and one context can have {needed:,} ({made_of})"
        cache_gib = plan.settings.rollout.kv_cache_gib
        mistakes.append(Mistake("rollout.kv_cache_gib", cache_gib, rule, "set it higher"))
    if 0 < positions < needed:
        rule = f"its contexts end at {positions:,} tokens, and one can have {needed:,} ({made_of})"
        remedy = "lower these, or take a model with longer contexts"
        mistakes.append(Mistake("model", plan.settings.model, rule, remedy))
    return mistakes


def _model_refusals(plan: PlacementPlan) -> list[Mistake]:
    """The settings that the model's release or its number of attention heads rules out."""
    settings = plan.settings
    shape = plan.shape
    mistakes: list[Mistake] = []
    released = shape.release is not None and shape.release.method == "mxfp4"  # others cannot be trained
    if released and settings.weights.content != "adapter":
        rule = "the model is released in mxfp4, which full weights cannot be loaded into"
        remedy = "set learner.lora={} weights.content=adapter, or give an unquantized copy of the model"
        mistakes.append(Mistake("weights.content", settings.weights.content, rule, remedy))
    on_cpu = settings.placement.device == "cpu" and not all(node.amx for node in plan.cluster.nodes)
    if released and on_cpu:
        rule = (
            "the model is released in mxfp4, whose experts vLLM computes on GPUs, and on CPUs with AMX, "
            "which is not there"
        )
        remedy = "set placement.device=gpu, or give an unquantized copy of the model"
        mistakes.append(Mistake("placement.device", "cpu", rule, remedy))
    parts = settings.rollout.tensor_parallel
    if shape.heads % parts:
        rule = f"the model's {shape.heads} attention heads cannot be dealt over {parts} GPUs"
        fits = max(number for number in range(1, parts + 1) if shape.heads % number == 0)
        remedy = f"set rollout.tensor_parallel={fits}"
        mistakes.append(Mistake("rollout.tensor_parallel", parts, rule, remedy))
    return mistakes


def _store_refusals(plan: PlacementPlan) -> list[Mistake]:
    """The mistake of an object store that cannot hold the newest weight version and the one before."""
    version = version_bytes(plan.settings, plan.shape)
    needed = 2 * version
    rule = f"two weight versions of {size(version)} each are alive at one time"
    if plan.cluster.started_here:
        store_gib = plan.settings.placement.object_store_gib
        if needed <= store_gib * 2**30:
            return []
        remedy = f"set placement.object_store_gib={needed // 2**30 + 1} or more"
        return [Mistake("placement.object_store_gib", store_gib, rule, remedy)]
    nodes = [plan.cluster.nodes[index] for index in plan.nodes_used]
    smallest = min(nodes, key=lambda node: node.object_store_bytes or 0)
    store_bytes = smallest.object_store_bytes or 0
    if needed <= store_bytes:
        return []
    remedy = f"start its Ray with --object-store-memory={needed}, or more"
    return [Mistake(f"object store of node {smallest.name}", size(store_bytes), rule, remedy)]


def _host_refusals(plan: PlacementPlan) -> list[Mistake]:
    """The mistake of a node with too little memory; of several, the one that lacks most."""
    lacking = [
        (plan.host_bytes(index) - plan.cluster.nodes[index].memory_bytes, index) for index in plan.nodes_used
    ]
    excess, index = max(lacking)
    if excess <= 0:
        return []
    node = plan.cluster.nodes[index]
    here = [actor for actor in plan.actors if any(placement.node == index for placement in actor.placements)]
    largest = _largest([*(part for actor in here for part in actor.memory), *plan.common], "host")
    needed = gigabytes(plan.host_bytes(index))
    rule = f"the plan needs {needed}, most of it for {largest.name} ({largest.formula})"
    pool = ", judge.pool.engines" if plan.pool else ""
    remedy = (
        f"lower learner.token_budget, rollout.kv_cache_gib{pool} or rollout.workers, or take a smaller model"
    )
    whose = "memory" if plan.cluster.started_here else f"memory of node {node.name}"
    return [Mistake(whose, f"{gigabytes(node.memory_bytes)} free", rule, remedy)]


def _gpu_refusals(plan: PlacementPlan) -> list[Mistake]:
    """The mistakes of actors that need more memory than their smallest GPU has."""
    mistakes = []
    for actor in plan.actors:
        if plan.too_large(actor):
            available = gigabytes(plan.gpu_memory_bytes(actor) or 0)
            needed = gigabytes(actor.bytes_on("gpu"))
            largest = _largest(actor.memory, "gpu")
            rule = f"it needs {needed} of a GPU, most of it for {largest.name} ({largest.formula})"
            staged = any(part.name == "version staged" for part in actor.memory)
            remedy = ("set weights.transport=auto, " if staged else "") + _GPU_REMEDIES[actor.name]
            mistakes.append(Mistake(f"GPU memory of one {actor.name} actor", available, rule, remedy))
    return mistakes


def _largest(parts: Sequence[Part], where: Where) -> Part:
    return max((part for part in parts if part.where == where), key=lambda part: part.size_bytes)
