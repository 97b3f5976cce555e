"""Why the engines of `judge.pool` would not start, or find no place, each reason with its figure."""

from collections.abc import Iterator

from dynalign.configs.errors import Mistake
from dynalign.configs.sections.pool import PoolSettings
from dynalign.launch.plan.plan import PlacementPlan

LOWER = "set judge.pool.context_tokens lower"


def pool_refusals(plan: PlacementPlan) -> list[Mistake]:
    """What no cluster could hold; empty without a pool."""
    pool = plan.settings.judge.pool
    if pool is None:
        return []
    of_engine = [] if pool.engine == "deterministic" else [*_of_contexts(plan, pool), *_of_model(plan, pool)]
    return [*_of_questions(plan, pool), *of_engine]


def unplaced_in_pool(plan: PlacementPlan) -> list[Mistake]:
    """The mistake of a pool whose engines do not fit beside learner and rollout on any node."""
    pool = plan.settings.judge.pool
    if pool is None or plan.pool is None:
        return []
    missing = [placement for placement in plan.pool.placements if placement.node is None]
    if not missing:
        return []
    on_gpu = plan.settings.placement.device == "gpu"
    setting = "tensor_parallel" if on_gpu else "engine_threads"
    value = pool.tensor_parallel if on_gpu else pool.engine_threads
    what = "GPUs" if on_gpu else "cores"
    rule = (
        f"the {what} of one engine are on one node, and beside learner and rollout "
        f"{len(missing)} of {pool.engines} engines find a place on none"
    )
    remedy = f"set judge.pool.engines or judge.pool.{setting} lower, or add nodes with {value} free {what}"
    return [Mistake(f"judge.pool.{setting}", value, rule, remedy)]


def _of_questions(plan: PlacementPlan, pool: PoolSettings) -> Iterator[Mistake]:
    """Each longer question would be refused, and its group withheld."""
    needed = plan.judge_tokens
    if pool.context_tokens is not None and pool.context_tokens < needed:
        rule = f"the longest question of this run's judges has {needed:,} tokens with its answer"
        remedy = f"set it to {needed} or more, or to null"
        yield Mistake("judge.pool.context_tokens", pool.context_tokens, rule, remedy)


def _of_contexts(plan: PlacementPlan, pool: PoolSettings) -> Iterator[Mistake]:
    needed = plan.pool_context_tokens
    positions = plan.pool_shape.positions
    if plan.pool_kv_tokens < needed:
        rule = f"the cache holds {plan.pool_kv_tokens:,} tokens, and one context can have {needed:,}"
        remedy = "set it higher" if pool.context_tokens is None else f"{LOWER}, or set it higher"
        yield Mistake("judge.pool.kv_cache_gib", pool.kv_cache_gib, rule, remedy)
    if 0 < positions < needed:
        rule = f"the contexts of its model end at {positions:,} tokens, and one can have {needed:,}"
        shorter = (
            "lower prompts.max_tokens or rollout.max_completion_tokens, or take a model with longer contexts"
        )
        remedy = shorter if plan.judge_tokens > positions else f"set it to {positions} or less"
        yield Mistake("judge.pool.context_tokens", pool.context_tokens, rule, remedy)


def _of_model(plan: PlacementPlan, pool: PoolSettings) -> Iterator[Mistake]:
    shape = plan.pool_shape
    on_cpu = plan.settings.placement.device == "cpu"
    if shape.heads % pool.tensor_parallel:
        rule = f"the model's {shape.heads} attention heads cannot be dealt over {pool.tensor_parallel} GPUs"
        fits = max(number for number in range(1, pool.tensor_parallel + 1) if shape.heads % number == 0)
        remedy = f"set judge.pool.tensor_parallel={fits}"
        yield Mistake("judge.pool.tensor_parallel", pool.tensor_parallel, rule, remedy)
    mxfp4 = shape.release is not None and shape.release.method == "mxfp4"
    if mxfp4 and on_cpu and not all(node.amx for node in plan.cluster.nodes):
        rule = (
            "the model is released in mxfp4, whose experts vLLM computes on GPUs, and on CPUs with AMX, "
            "which is not there"
        )
        yield Mistake("judge.pool.model", pool.model, rule, "give an unquantized copy of the model")
