"""What is said before a run that fits: where Ray would kill its actors, and a precision without
instructions."""

from dataclasses import replace
from typing import Any

import pytest

from dynalign.launch.plan.nodes import UNKNOWN, Cluster, Node
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.plan.warnings import memory_warning, plan_warnings
from tests.launch.models.test_shape import SMOL
from tests.launch.plan.test_plan import GPU_BYTES, planned

GB = 10**9
NODE = Node("this machine", (0, 1), 16 * GB, total_bytes=20 * GB, kill_share=0.95)


def alone(node: Node) -> Cluster:
    return Cluster((node,), started_here=True)


def test_what_may_be_taken_is_what_is_free_less_what_ray_keeps_free() -> None:
    assert NODE.headroom_bytes == 15 * GB  # 4 of 20 are in use, and Ray kills above 19
    assert replace(NODE, kill_share=None).headroom_bytes is None
    assert Node("a", (0,), 16 * GB).headroom_bytes is None


def test_a_plan_beyond_ray_s_threshold_is_told_with_its_figures() -> None:
    assert memory_warning(NODE, 15 * GB) == ""
    assert memory_warning(NODE, 15 * GB + 10**8) == (
        "memory of this machine: the plan needs 15.1 GB, and with 15.0 GB more in use Ray's memory monitor "
        "kills actors (above 95% of its 20.0 GB); lower learner.token_budget, rollout.kv_cache_gib or "
        "rollout.workers, end other programs there, or raise RAY_memory_usage_threshold"
    )


def test_the_printed_plan_knows_the_threshold() -> None:
    result = planned(on=alone(NODE))
    (line,) = [line for line in plan_lines(result) if line.startswith("host memory")]
    assert line.endswith("of 16.0 GB free; Ray kills actors beyond 15.0 GB")
    assert plan_warnings(result) == []
    needed = result.host_bytes(0)
    tight = replace(NODE, memory_bytes=needed + GB // 2)
    (warning,) = plan_warnings(planned(on=alone(tight)))
    assert "Ray's memory monitor" in warning


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ([], "rollout.dtype=float32 learner.precision=float32"),
        (["rollout.dtype=float32"], "learner.precision=float32"),
        (["learner.precision=float32"], "rollout.dtype=float32"),
        (["rollout.engine=deterministic"], "learner.precision=float32"),
    ],
)
def test_a_cpu_without_bfloat16_is_told_with_the_settings_that_help(
    overrides: list[str], settings: str
) -> None:
    (warning,) = plan_warnings(planned(*overrides, on=alone(replace(NODE, bfloat16=False))))
    assert warning.startswith("this machine: the cores have no instructions for bfloat16")
    assert warning.endswith(f"; set {settings}")
    after = planned(*overrides, *settings.split(), on=alone(replace(NODE, bfloat16=False)))
    assert plan_warnings(after) == []


def test_a_gpu_is_not_asked_what_its_host_s_cores_can() -> None:
    node = replace(
        NODE, bfloat16=False, gpus=(GPU_BYTES, GPU_BYTES), memory_bytes=64 * GB, total_bytes=65 * GB
    )
    assert plan_warnings(planned("placement.device=gpu", on=alone(node))) == []


@pytest.mark.parametrize(
    ("changed", "lacks"),
    [
        ({}, None),
        ({"sinks": True}, "attention sinks"),
        ({"head": 36}, "heads of 36 numbers (it takes multiples of 8 up to 256)"),
    ],
    ids=str,
)
def test_a_model_whose_attention_the_one_call_does_not_take_is_told_before_the_run(
    changed: dict[str, Any], lacks: str | None
) -> None:
    shape = replace(SMOL, **changed)
    told = plan_warnings(planned("placement.device=gpu", "learner.attention=varlen", on=UNKNOWN, shape=shape))
    expected = (
        f"learner.attention=varlen: this model has {lacks}, which it does not take; the learner uses sdpa"
    )
    assert told == ([] if lacks is None else [expected])
    assert plan_warnings(planned("placement.device=gpu", on=UNKNOWN, shape=shape)) == []
