"""The placement plan as text: aligned lines, every figure beside its formula."""

import math
from collections.abc import Iterable, Iterator

from dynalign.configs.sections.capability import SHARE
from dynalign.launch.plan.disk import mirror_part
from dynalign.launch.plan.memory import Part, gigabytes, size, version_bytes
from dynalign.launch.plan.plan import ActorPlan, PlacementPlan

_WIDTHS = (20, 26, 9)


def plan_lines(plan: PlacementPlan) -> list[str]:
    """The lines that `dynalign check` prints."""
    lines = [_row("actor", "runs on", "memory", "made of")]
    for actor in plan.actors:
        lines += [_actor_row(plan, actor), *_parts(actor.memory)]
    here = "this machine" if plan.cluster.started_here else "each node"
    lines += [_row("common", here, size(sum(part.size_bytes for part in plan.common))), *_parts(plan.common)]
    for node in _fullest(plan):
        lines.append(
            _row(
                "host memory",
                plan.cluster.nodes[node].name,
                gigabytes(plan.host_bytes(node)),
                _free(plan, node),
            )
        )
    return [*lines, *_joining(plan), *placement_lines(plan), *_flow(plan), *_disk(plan)]


def placement_lines(plan: PlacementPlan) -> list[str]:
    """Which actors each node runs, a line per node; empty for one node, or an unknown cluster."""
    if not _several(plan):
        return []
    return [f"{plan.cluster.nodes[node].name}: {', '.join(_on_node(plan, node))}" for node in plan.nodes_used]


def _several(plan: PlacementPlan) -> bool:
    return len(plan.cluster.nodes) > 1


def _on_node(plan: PlacementPlan, node: int) -> Iterator[str]:
    for actor in sorted(plan.actors, key=lambda each: each is not plan.learner):
        here = [index for index, placement in enumerate(actor.placements) if placement.node == node]
        gpus = sorted({gpu for index in here for gpu in actor.placements[index].gpus})
        if here:
            yield f"{actor.name}-{_span(here)}{f' on GPU {_span(gpus)}' if gpus else ''}"


def _fullest(plan: PlacementPlan) -> list[int]:
    """The node with the least host memory left; empty where no node is used."""
    return sorted(plan.nodes_used, key=lambda node: _left_bytes(plan, node))[:1]


def _left_bytes(plan: PlacementPlan, node: int) -> int:
    return plan.cluster.nodes[node].memory_bytes - plan.host_bytes(node)


def _free(plan: PlacementPlan, node: int) -> str:
    which = ", the fullest node" if _several(plan) else ""
    headroom_bytes = plan.cluster.nodes[node].headroom_bytes
    kills = "" if headroom_bytes is None else f"; Ray kills actors beyond {gigabytes(headroom_bytes)}"
    return f"of {gigabytes(plan.cluster.nodes[node].memory_bytes)} free{which}{kills}"


def _joining(plan: PlacementPlan) -> list[str]:
    workers = plan.settings.rollout.workers
    more = workers.max - workers.min
    if more == 0:
        return []
    note = f"workers, up to rollout.workers.max={workers.max}"
    if plan.more_engines is not None and plan.cluster.nodes:
        note += f", {min(more, plan.more_engines)} of them have a place now"
    return [_row("may join", "", f"{more:,}", note)]


def _flow(plan: PlacementPlan) -> list[str]:
    rollout = plan.settings.rollout
    cache = f"tokens; a context has at most {plan.context_tokens:,}"
    step = (
        f"candidates ({rollout.prompts_per_step} prompts x {rollout.group_size}), "
        f"at most {plan.completion_tokens_per_step:,} completion tokens"
    )
    version = size(version_bytes(plan.settings, plan.shape))
    of_pool = f"tokens; a judge's longest question has {plan.judge_tokens:,} with its answer"
    pool = [_row("key-value cache", "each of judge.pool", f"{plan.pool_kv_tokens:,}", of_pool)]
    return [
        _row("weight version", plan.transport.name, version, plan.transport.reason),
        _row("key-value cache", "each engine", f"{plan.kv_tokens:,}", cache),
        *(pool if plan.pool is not None else ()),
        *_gateway(plan),
        _row("step", "", f"{plan.candidates_per_step:,}", step),
        *_heldout(plan),
        *_capability(plan),
    ]


def _capability(plan: PlacementPlan) -> list[str]:
    """What the capability probe costs; nothing without one."""
    probe = plan.settings.capability
    if probe.items == 0:
        return []
    if plan.settings.placement.mode == "shared":
        note = f"items at most, before step 1 and every {probe.every_steps} steps; training waits for them"
        return [_row("capability probe", "each engine", f"{probe.items:,}", note)]
    budget = SHARE * plan.completion_tokens_per_step
    note = (
        f"items at most, all of them before step 1; then {SHARE:.0%} of a step's completion tokens, at most "
        f"{budget:,.0f}, {probe.every_steps} steps a point"
    )
    return [_row("capability probe", "each engine, beside", f"{probe.items:,}", note)]


def _heldout(plan: PlacementPlan) -> list[str]:
    """How long held-out answers beside the groups take; nothing where training waits for them.

    An answer has the same limit as a training candidate, and its context counts too: fewest steps with
    contexts of no length, most with contexts as long as may be.
    """
    heldout = plan.settings.heldout
    if heldout.waits or heldout.prompts == 0:
        return []
    answers = heldout.prompts * (2 if heldout.prompted else 1)
    limit = plan.settings.rollout.max_completion_tokens
    fewest, most = (
        math.ceil(answers * (context + limit) / (SHARE * plan.completion_tokens_per_step))
        for context in (0, plan.settings.prompts.max_tokens)
    )
    note = (
        f"answers at most; at {SHARE:.0%} of a step's completion tokens they take {fewest:,} to {most:,} "
        f"steps, by the length of their contexts, every {heldout.every_steps}"
    )
    if most > heldout.every_steps:
        note += ": set heldout.every_steps higher, or fewer heldout.prompts, or evaluations may be left out"
    return [_row("held-out answers", "each engine, beside", f"{answers:,}", note)]


def _gateway(plan: PlacementPlan) -> list[str]:
    """Who asks the endpoints, and with how long questions; nothing without endpoints."""
    names = plan.settings.judge.endpoints
    if not names:
        return []
    note = f"tokens of the longest question to {', '.join(names)}, with its answer"
    return [_row("gateway", "the driver's node", f"{plan.judge_tokens:,}", note)]


def _disk(plan: PlacementPlan) -> list[str]:
    total_bytes = sum(part.size_bytes for part in plan.disk)
    total = _row("disk", f"run folder, {plan.checkpoints} checkpoints", size(total_bytes))
    mirror = mirror_part(plan.settings, plan.shape)
    beside = [] if mirror is None else [_row("mirror", "", size(mirror.size_bytes), mirror.formula)]
    return [total, *_parts(plan.disk), *beside]


def _actor_row(plan: PlacementPlan, actor: ActorPlan) -> str:
    name = f"{actor.name} x {actor.count}"
    each = "each" if actor.count > 1 else ""
    if not actor.gpus_per_actor:
        return _row(name, _runs_on(plan, actor), gigabytes(actor.bytes_on("host")), each)
    available_bytes = plan.gpu_memory_bytes(actor)
    gpu = f"{gigabytes(available_bytes)} of " if available_bytes is not None else ""
    whose = f"each of its {actor.gpus_per_actor} GPUs" if actor.gpus_per_actor > 1 else "the GPU"
    note = f"of {gpu}{whose}{f' {each}' if each else ''}, and {gigabytes(actor.bytes_on('host'))} of the host"
    return _row(name, _runs_on(plan, actor), gigabytes(actor.bytes_on("gpu")), note)


def _row(name: str, where: str, figure: str, note: str = "") -> str:
    return f"{name:<{_WIDTHS[0]}}{where:<{_WIDTHS[1]}}{figure:>{_WIDTHS[2]}}  {note}".rstrip()


def _parts(parts: Iterable[Part]) -> list[str]:
    return [
        _row(f"  {part.name}", "GPU" if part.where == "gpu" else "", size(part.size_bytes), part.formula)
        for part in parts
    ]


def _runs_on(plan: PlacementPlan, actor: ActorPlan) -> str:
    nodes = {placement.node for placement in actor.placements if placement.node is not None}
    gpus = sorted({gpu for placement in actor.placements for gpu in placement.gpus})
    shared = "none" if actor is plan.pool else plan.sharing
    sharing = {"none": "", "in turn": ", in turn", "split": f", {actor.gpu_share:.0%} of it"}[shared]
    if not nodes:
        plural = "s" if actor.gpus_per_actor > 1 else ""
        wanted = f"{actor.gpus_per_actor} GPU{plural} each" if actor.gpus_per_actor else ""
        return f"{wanted}{sharing}" or "where Ray places it"
    if _several(plan):
        return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}{sharing}"
    if gpus:
        return f"GPU {_span(gpus)}{sharing}"
    cores = sorted({core for placement in actor.placements for core in placement.cores})
    return f"core {_span(cores)}" if cores else plan.cluster.nodes[0].name


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
