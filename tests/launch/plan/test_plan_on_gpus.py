"""Plans on GPUs against figures worked by hand: taken in turn, split, and the paper's run."""

from dataclasses import replace

import pytest

from dynalign.launch.models.shape import shape_of
from dynalign.launch.plan.nodes import UNKNOWN, Cluster
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals, shortage
from dynalign.launch.plan.text import plan_lines
from tests.launch.models.test_shape import GPT_OSS_20B
from tests.launch.plan.test_plan import GPU_BYTES, LAPTOP, machine, part, places, planned, run


@pytest.mark.parametrize(
    ("gpus", "overrides", "engines", "ranks", "share"),
    [
        (2, [], (1,), (0,), 1.0),
        (1, ["placement.rollout_gpu_fraction=0.4"], (0,), (0,), 0.4),
        (1, ["placement.mode=shared", "algorithm.max_staleness=0"], (0,), (0,), 0.5),
        (
            2,
            ["placement.mode=shared", "algorithm.max_staleness=0", "rollout.workers=2", "learner.ranks=2"],
            (0, 1),
            (0, 1),
            0.5,
        ),
        (4, ["rollout.workers=3"], (1, 2, 3), (0,), 1.0),
    ],
)
def test_gpus_are_one_each_taken_in_turn_or_split(
    gpus: int, overrides: list[str], engines: tuple[int, ...], ranks: tuple[int, ...], share: float
) -> None:
    result = planned(
        "placement.device=gpu", *overrides, on=machine((0,), 64_000_000_000, (GPU_BYTES,) * gpus)
    )
    gpus_of = [
        tuple(gpu for placement in actor.placements for gpu in placement.gpus)
        for actor in (result.rollout, result.learner)
    ]
    assert (*gpus_of, result.rollout.gpu_share) == (engines, ranks, share)
    assert places(result) == []


def test_actors_that_take_turns_keep_what_sleeps_in_host_memory() -> None:
    """The engine's 2 bytes per parameter, the learner's 2 + 12, which are more than the 4 of the packing probe.

    On the GPU both have their CUDA context all the time, and the version that the engine reads in the
    learner's memory stays.
    """
    here = machine((0,), 64_000_000_000, (GPU_BYTES,))
    shared = planned("placement.device=gpu", "placement.mode=shared", "algorithm.max_staleness=0", on=here)
    split = planned("placement.device=gpu", on=here)
    assert shared.host_bytes(0) - split.host_bytes(0) == 134_515_008 * (2 + 2 + 12 - 4)
    for actor, other in ((shared.rollout, split.rollout), (shared.learner, split.learner)):
        assert actor.bytes_on("gpu") - other.bytes_on("gpu") == 10**9 + (
            134_515_008 * 2 if actor is shared.rollout else 0
        )


def test_a_split_gpu_must_hold_both_and_a_gpu_in_turn_only_one() -> None:
    """The learner needs 4.9 GB with its context alone, 5.9 GB beside the engine's.

    Half of 6 GB is too little for either.
    """
    small = machine((0,), 64_000_000_000, (6_000_000_000,))
    settings = ["placement.device=gpu", "learner.token_budget=1024", "rollout.kv_cache_gib=2"]
    assert places(planned(*settings, on=small)) == [
        "GPU memory of one rollout actor",
        "GPU memory of one learner actor",
    ]
    assert places(planned(*settings, "placement.mode=shared", "algorithm.max_staleness=0", on=small)) == []


def test_a_run_that_takes_more_gpus_than_there_are_is_refused_with_both_numbers() -> None:
    (mistake,) = shortage(
        run("placement.device=gpu", "rollout.workers=8", "learner.ranks=8"),
        machine((0,), 10**12, (GPU_BYTES,)),
    )
    assert "take 16 GPUs, and this machine has 1" in mistake.rule
    assert shortage(run(), LAPTOP) == []


def test_a_gpu_s_plan_says_what_lies_on_the_gpu_and_what_on_the_host() -> None:
    here = machine((0,), 64_000_000_000, (GPU_BYTES,))
    text = "\n".join(
        plan_lines(planned("placement.device=gpu", "placement.rollout_gpu_fraction=0.4", on=here))
    )
    assert "GPU 0, 40% of it" in text
    assert "of the GPU, and 1.7 GB of the host" in text


def test_an_engine_split_over_gpus_has_a_part_of_weights_and_cache_on_each() -> None:
    """4 GPUs: 134.5 M x 2 B / 4 of the weights, 1 GiB / 4 of the cache.

    Its 3 key-value heads are not enough for 4 GPUs, so each holds one whole head: 2 x 30 x 64 x 2 = 7,680 B
    per token, and 268,435,456 / (7,680 x 32) = 1,092 blocks of 32 tokens.
    """
    split = planned(
        "placement.device=gpu", "rollout.tensor_parallel=4", "rollout.kv_cache_gib=1.0", on=UNKNOWN
    )
    assert part(split.rollout, "weights").size_bytes == 134_515_008 * 2 // 4
    assert part(split.rollout, "key-values").size_bytes == 2**30 // 4
    assert split.kv_tokens == 1092 * 32
    assert split.rollout.gpus_per_actor == 4
    text = "\n".join(plan_lines(split))
    assert "4 GPUs each" in text
    assert "of each of its 4 GPUs" in text


def test_heads_that_cannot_be_dealt_over_the_gpus_are_refused_with_a_number_that_can() -> None:
    (mistake,) = refusals(planned("placement.device=gpu", "rollout.tensor_parallel=4", on=UNKNOWN))
    assert "9 attention heads cannot be dealt over 4 GPUs" in mistake.rule
    assert mistake.remedy == "set rollout.tensor_parallel=3"
    assert places(planned("placement.device=gpu", "rollout.tensor_parallel=3", on=UNKNOWN)) == []


PAPER_GPU = machine(tuple(range(26)), 200 * 10**9, (80 * 10**9,))
"""One H100 of 80 GB with the usual host."""


def paper(*overrides: str, on: Cluster = PAPER_GPU) -> PlacementPlan:
    return plan(run(*overrides, config="paper"), shape_of(GPT_OSS_20B), on, context_tokens=12_000)


def test_the_paper_s_run_adds_up_on_one_gpu_of_80_gb() -> None:
    """Engine: 13.76 GB as released + 0.92 padding, 20 GiB of cache.

    Learner: 20.91 G x 2 B unpacked = 41.8 GB, adapters of 24 x 16 x (2 x (2,880 + 4,096) + 2 x (2,880 +
    512)) = 7.96 M parameters x 12 B = 0.1 GB.
    """
    result = paper()
    assert places(result) == []
    assert part(result.learner, "weights").size_bytes == (20_914_757_184 + 7_962_624) * 2
    assert part(result.learner, "optimizer").size_bytes == 7_962_624 * 12
    assert part(result.rollout, "weights").size_bytes == shape_of(GPT_OSS_20B).engine_bytes(2)
    for actor in (result.rollout, result.learner):
        figures = [item.size_bytes for item in actor.memory if item.where == "gpu"]
        assert sum(figures) == actor.bytes_on("gpu") < 80 * 10**9
        assert all(f"  {item.name}" in "\n".join(plan_lines(result)) for item in actor.memory)
    assert (result.sharing, result.transport.name) == ("in turn", "object_store")
    assert result.rollout.bytes_on("gpu") + result.learner.bytes_on("gpu") > 80 * 10**9, (
        "they would not need to take turns"
    )


def test_the_paper_s_model_is_not_trained_whole_on_one_gpu() -> None:
    """20.91 G x (2 + 6 + 12) B = 418 GB, and what is released in mxfp4 takes no full weights."""
    content, host, learner = refusals(
        paper("learner.lora=null", "weights.content=full", "placement.object_store_gib=100")
    )
    assert (content.place, host.place, learner.place) == (
        "weights.content",
        "memory",
        "GPU memory of one learner actor",
    )
    assert "released in mxfp4" in content.rule
    needed = float(learner.rule.split(" needs ")[1].split(" GB")[0])
    assert needed > 20_914_757_184 * 20 / 1e9
    assert "optimizer (20.91 G x 12 B)" in learner.rule


def test_experts_in_mxfp4_are_computed_on_a_gpu_or_on_a_cpu_with_amx() -> None:
    (node,) = PAPER_GPU.nodes
    without = replace(PAPER_GPU, nodes=(replace(node, amx=False),))
    assert "placement.device" in places(paper("placement.device=cpu", on=without))
    assert "placement.device" not in places(paper("placement.device=cpu")) + places(paper(on=without))


def test_merged_weights_are_not_pushed_into_a_quantized_engine() -> None:
    assert "weights.content" in places(paper("weights.content=full", "placement.object_store_gib=100"))
    plain = replace(shape_of(GPT_OSS_20B), release=None)
    unpacked = run("weights.content=full", "placement.object_store_gib=100", config="paper")
    assert "weights.content" not in [
        mistake.place for mistake in refusals(plan(unpacked, plain, PAPER_GPU, 12_000))
    ]
