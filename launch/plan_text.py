"""The placement plan as a person reads it: aligned lines, every figure beside its formula."""

from collections.abc import Iterable

from launch.memory import Part, gigabytes
from launch.plan import ActorPlan, PlacementPlan

_WIDTHS = (20, 26, 8)


def plan_lines(plan: PlacementPlan) -> list[str]:
    """What `check` prints."""
    lines = [_row("actor", "runs on", "memory", "made of")]
    for actor in (plan.rollout, plan.learner):
        lines += [_actor_row(actor, plan.settings.placement.mode == "shared"), *_parts(actor.memory)]
    common = gigabytes(sum(part.size_bytes for part in plan.common))
    lines += [_row("common", "this machine" if plan.machine else "each node", common), *_parts(plan.common)]
    if plan.machine:
        lines.append(_row("host memory", "this machine", gigabytes(plan.host_bytes), f"of {gigabytes(plan.machine.memory_bytes)} free"))
    cache = f"tokens; a context has at most {plan.context_tokens:,}"
    step = f"candidates ({plan.settings.rollout.prompts_per_step} prompts x {plan.settings.rollout.group_size})"
    return [
        *lines,
        _row("key-value cache", "each engine", f"{plan.kv_tokens:,}", cache),
        _row("checkpoint", f"disk, {plan.checkpoints} at one time", gigabytes(plan.checkpoint.size_bytes), plan.checkpoint.formula),
        _row("step", "", f"{plan.candidates_per_step:,}", f"{step}, at most {plan.completion_tokens_per_step:,} completion tokens"),
    ]


def _actor_row(actor: ActorPlan, in_turn: bool) -> str:
    name, each = f"{actor.name} x {actor.count}", "each" if actor.count > 1 else ""
    if not any(part.where == "gpu" for part in actor.memory):
        return _row(name, _runs_on(actor, in_turn), gigabytes(actor.bytes_on("host")), each)
    note = f"of the GPU{f' {each}' if each else ''}, and {gigabytes(actor.bytes_on('host'))} of the host"
    return _row(name, _runs_on(actor, in_turn), gigabytes(actor.bytes_on("gpu")), note)


def _row(name: str, where: str, figure: str, note: str = "") -> str:
    return f"{name:<{_WIDTHS[0]}}{where:<{_WIDTHS[1]}}{figure:>{_WIDTHS[2]}}  {note}".rstrip()


def _parts(parts: Iterable[Part]) -> list[str]:
    return [_row(f"  {part.name}", "GPU" if part.where == "gpu" else "", gigabytes(part.size_bytes), part.formula) for part in parts]


def _runs_on(actor: ActorPlan, in_turn: bool) -> str:
    gpus = sorted({gpu for gpu in actor.gpus if gpu is not None})
    if gpus:
        share = ", in turn" if in_turn else f", {actor.gpu_share:.0%} of it" if actor.gpu_share < 1 else ""
        return f"GPU {_span(gpus)}{share}"
    cores = sorted({core for hand in actor.cores for core in hand})
    return f"core {_span(cores)}" if cores else "where Ray places it"


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
