"""What refuses no run and is said before it: what a plan will suffer from."""

from collections.abc import Sequence

from dynalign.configs.schema import RunSettings
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.nodes import Node
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.learner.rows.varlen_limits import varlen_lacks

LESS_MEMORY = (
    "lower learner.token_budget, rollout.kv_cache_gib or rollout.workers, end other programs there, "
    "or raise RAY_memory_usage_threshold"
)
NO_BFLOAT16 = (
    "the cores have no instructions for bfloat16 (avx512_bf16, amx_bf16), and their products take "
    "up to 30 times as long as in float32"
)
"""Measured on AVX2: 1.1 and 37.5 GFLOP/s."""


def plan_warnings(plan: PlacementPlan) -> list[str]:
    """The warnings of a plan, a line each; none on an unknown cluster."""
    nodes = [plan.cluster.nodes[index] for index in plan.nodes_used]
    memory = [memory_warning(plan.cluster.nodes[index], plan.host_bytes(index)) for index in plan.nodes_used]
    return [
        line for line in (*memory, bfloat16_warning(plan.settings, nodes), attention_warning(plan)) if line
    ]


def attention_warning(plan: PlacementPlan) -> str:
    """Says that attention is computed in another form than was set; empty where it is not."""
    if plan.settings.learner.attention == "sdpa":
        return ""
    lacking = varlen_lacks(plan.shape.head, plan.shape.sinks)
    if not lacking:
        return ""
    return (
        f"learner.attention=varlen: this model has {lacking}, which it does not take; the learner uses sdpa"
    )


def memory_warning(node: Node, needed_bytes: int) -> str:
    """Says that Ray would kill actors of a run that fits otherwise; empty where it would not.

    needed_bytes: what the run's actors take of the node.
    """
    headroom_bytes = node.headroom_bytes
    if headroom_bytes is None or needed_bytes <= headroom_bytes:
        return ""
    threshold = f"above {node.kill_share:.0%} of its {gigabytes(node.total_bytes)}"
    rule = (
        f"the plan needs {gigabytes(needed_bytes)}, and with {gigabytes(max(0, headroom_bytes))} more in use"
    )
    return f"memory of {node.name}: {rule} Ray's memory monitor kills actors ({threshold}); {LESS_MEMORY}"


def bfloat16_warning(settings: RunSettings, nodes: Sequence[Node]) -> str:
    """Says that a run on CPUs computes in a precision for which they have no instructions; empty where they
    have them, or where it does not."""
    slow = [node.name for node in nodes if not node.bfloat16]
    changes = float32_settings(settings)
    if not slow or not changes or settings.placement.device == "gpu":
        return ""
    return f"{', '.join(slow)}: {NO_BFLOAT16}; set {' '.join(changes)}"


def float32_settings(settings: RunSettings) -> list[str]:
    """The settings that make a run compute in float32, as overrides; none for one that does already."""
    changes = []
    if settings.rollout.engine == "vllm" and settings.rollout.dtype == "bfloat16":
        changes.append("rollout.dtype=float32")
    if settings.learner.precision == "bfloat16":
        changes.append("learner.precision=float32")
    return changes
