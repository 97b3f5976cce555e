"""The placement plan against figures worked by hand, and the figures that it refuses."""

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import ModelShape
from dynalign.launch.plan.memory import Part, count
from dynalign.launch.plan.nodes import UNKNOWN, Cluster, Node
from dynalign.launch.plan.plan import ActorPlan, PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals
from dynalign.launch.plan.text import plan_lines
from tests.launch.models.test_shape import SMOL

GPU_BYTES = 80 * 2**30


def machine(cores: tuple[int, ...], memory_bytes: int, gpus: tuple[int, ...] = ()) -> Cluster:
    """One machine, whose cluster the driver starts."""
    return Cluster((Node("this machine", cores, memory_bytes, gpus),), started_here=True)


LAPTOP = machine((0, 1), 16_000_000_000)


def run(*overrides: str, config: str = "quickstart") -> RunSettings:
    return load_run(config, overrides).settings


def planned(*overrides: str, on: Cluster = LAPTOP, shape: ModelShape = SMOL) -> PlacementPlan:
    return plan(run(*overrides), shape, on, context_tokens=1200)


def part(actor: ActorPlan, name: str) -> Part:
    (found,) = (item for item in actor.memory if item.name == name)
    return found


def places(result: PlacementPlan) -> list[str]:
    return [mistake.place for mistake in refusals(result)]


def test_one_gib_of_key_values_holds_46592_tokens_of_the_small_model() -> None:
    """2 x 30 layers x 192 numbers x 2 B = 23,040 B per token, in whole blocks of 32 tokens, as in vLLM."""
    assert SMOL.kv_bytes_per_token(2) == 23_040
    assert planned("rollout.kv_cache_gib=1.0").kv_tokens == 46_592


def test_a_learner_s_parts_are_the_products_their_formulas_say() -> None:
    learner = planned("learner.token_budget=1024", "learner.logprob_chunk_tokens=256").learner
    assert part(learner, "weights").size_bytes == 134_515_008 * 2
    assert part(learner, "gradients").size_bytes == 134_515_008 * (2 + 4)
    assert part(learner, "optimizer").size_bytes == 134_515_008 * 12
    assert part(learner, "logits").size_bytes == 256 * 49_152 * 3 * 4
    per_layer = 2 * (3 * 576 + 2 * 576 + 2 * 192 + 4 * 1536) + 30 * 576
    assert part(learner, "activations").size_bytes == 1024 * 30 * per_layer


@pytest.mark.parametrize(
    ("overrides", "peak_gb"),
    [
        (["learner.token_budget=560"], 4.31),
        (["learner.token_budget=1024"], 4.94),
        (["learner.token_budget=2048"], 5.50),
        (["learner.token_budget=1024", "learner.gradient_checkpointing=true"], 3.89),
        (["learner.token_budget=1024", "learner.precision=float32"], 5.46),
    ],
)
def test_a_learner_s_plan_agrees_with_its_measured_peak(overrides: list[str], peak_gb: float) -> None:
    """Resident memory of one rank in its second step on 4 groups of 8 x 48 tokens after 90, one CPU core."""
    planned_gb = planned(*overrides).learner.bytes_on("host") / 1e9
    assert 0.93 < planned_gb / peak_gb < 1.12


def test_an_engine_s_plan_agrees_with_its_measured_memory() -> None:
    """Actor and EngineCore together took 3.0 GB with 1 GiB of key-values, no version on its way."""
    assert 2.8 < planned("rollout.kv_cache_gib=1.0").rollout.bytes_on("host") / 1e9 < 3.2


def test_versions_are_kept_twice_where_engines_map_them_and_once_per_engine_where_they_are_copied() -> None:
    version = 134_515_008 * 2
    mapped = planned()
    stored = planned("weights.transport=object_store")
    assert [part.size_bytes for part in mapped.common if part.name == "version made"] == [2 * version]
    assert [part.size_bytes for part in stored.common if part.name == "version made"] == [version]
    assert (
        stored.rollout.bytes_on("host") - mapped.rollout.bytes_on("host")
        == version
        == part(stored.rollout, "version landed").size_bytes
    )


def test_zero_stages_divide_one_more_part_each() -> None:
    sizes = {}
    for stage in range(4):
        learner = planned("learner.ranks=4", f"learner.zero_stage={stage}").learner
        sizes[stage] = [
            part(learner, name).size_bytes // 134_515_008 for name in ("optimizer", "gradients", "weights")
        ]
    assert sizes == {0: [12, 6, 2], 1: [3, 6, 2], 2: [3, 1, 2], 3: [3, 1, 0]}


def test_adapters_are_all_that_is_trained() -> None:
    """q_proj: 576 + 576 numbers, v_proj: 576 + 192; times 30 layers, times rank 8."""
    adapters = 30 * 8 * (576 + 576 + 576 + 192)
    learner = planned("learner.lora={rank: 8, targets: [q_proj, v_proj]}").learner
    assert part(learner, "optimizer").size_bytes == adapters * 12
    assert part(learner, "weights").size_bytes == (134_515_008 + adapters) * 2


def test_gradient_checkpointing_keeps_each_layer_s_input_and_one_layer() -> None:
    without = planned().learner
    with_it = planned("learner.gradient_checkpointing=true").learner
    assert part(with_it, "activations").size_bytes * 10 < part(without, "activations").size_bytes


def test_a_kl_term_keeps_the_initial_policy_unless_adapters_can_be_switched_off() -> None:
    assert part(planned("algorithm.kl_coef=0.1").learner, "initial policy").size_bytes == 134_515_008 * 2
    names = [item.name for item in planned("algorithm.kl_coef=0.1", "learner.lora={}").learner.memory]
    assert "initial policy" not in names


def test_the_deterministic_engine_has_no_weights_and_no_cache() -> None:
    result = planned("rollout.engine=deterministic", "rollout.kv_cache_gib=0.001")
    assert result.rollout.bytes_on("host") < 1e9
    assert places(result) == []


@pytest.mark.parametrize(
    ("cores", "overrides", "expected"),
    [
        ((0, 1), [], {"rollout-0": (0,), "learner-0": (1,)}),
        ((0,), [], {"rollout-0": (0,), "learner-0": (0,)}),
        ((4, 7), [], {"rollout-0": (4,), "learner-0": (7,)}),
        (
            (0, 1, 2, 3),
            ["rollout.engine_threads=2", "learner.threads=2"],
            {"rollout-0": (0, 1), "learner-0": (2, 3)},
        ),
        ((0, 1), ["rollout.workers=2"], {"rollout-0": (0,), "rollout-1": (1,), "learner-0": (0,)}),
        ((0, 1), ["rollout.engine_threads=8"], {"rollout-0": (0, 1), "learner-0": (0,)}),
        (
            (0, 1),
            ["placement.mode=shared", "algorithm.max_staleness=0"],
            {"rollout-0": (0,), "learner-0": (0,)},
        ),
    ],
)
def test_actors_have_cores_of_their_own_while_there_are_enough(
    cores: tuple[int, ...], overrides: list[str], expected: dict[str, tuple[int, ...]]
) -> None:
    assert planned(*overrides, on=machine(cores, 16_000_000_000)).cores == expected


def test_nothing_is_pinned_on_a_gpu_or_on_a_cluster_that_places_by_itself() -> None:
    assert planned("placement.device=gpu", on=machine((0, 1), 64_000_000_000, (GPU_BYTES,))).cores == {}
    assert planned(on=UNKNOWN).cores == {}


def test_too_little_memory_is_refused_with_the_largest_part() -> None:
    (mistake,) = refusals(planned(on=machine((0, 1), 4_000_000_000)))
    assert (mistake.place, mistake.value) == ("memory", "4.0 GB free")
    assert "activations (2,048 tokens x 30 layers x 36,096 B)" in mistake.rule


def test_an_object_store_must_hold_two_versions_of_the_weights() -> None:
    (mistake,) = refusals(planned("placement.object_store_gib=0.5"))
    assert mistake.place == "placement.object_store_gib"
    assert "set placement.object_store_gib=1 or more" in mistake.remedy
    assert places(planned("placement.object_store_gib=0.51")) == []


def test_a_cache_must_hold_one_longest_context_and_the_model_too() -> None:
    assert places(plan(run("rollout.kv_cache_gib=0.02"), SMOL, LAPTOP, context_tokens=1200)) == [
        "rollout.kv_cache_gib"
    ]
    assert places(plan(run(), SMOL, LAPTOP, context_tokens=8193)) == ["model"]
    assert places(plan(run(), SMOL, LAPTOP, context_tokens=8192)) == []


def test_a_running_cluster_is_asked_for_no_memory_of_this_machine() -> None:
    assert refusals(planned("rollout.workers=900", on=UNKNOWN)) == []


def test_the_plan_prints_every_part_with_its_formula_in_aligned_columns() -> None:
    lines = plan_lines(planned())
    assert any("134.5 M x 12 B" in line for line in lines)
    ends = {line.index(" GB") for line in lines if " GB  " in line}
    assert len(ends) == 1
    titles = [line.split("  ")[0] for line in lines if line[0] != " "]
    assert titles == [
        "actor",
        "rollout x 1",
        "learner x 1",
        "common",
        "host memory",
        "weight version",
        "key-value cache",
        "step",
        "disk",
    ]


def test_the_packing_probe_counts_where_it_is_the_learner_s_peak() -> None:
    """134.5 M x 4 B before training. Full training takes more later; adapters and a GPU leave less on the
    host."""
    probe = 4 * 134_515_008
    names = [item.name for item in planned().learner.memory]
    assert "packing probe" not in names
    lora = planned("learner.lora={}", "learner.token_budget=1024", "learner.gradient_checkpointing=true")
    without = [item for item in lora.learner.memory if item.name not in ("process", "packing probe")]
    expected = max(0, probe - sum(item.size_bytes for item in without))
    assert sum(item.size_bytes for item in lora.learner.memory if item.name == "packing probe") == expected
    gpu = planned("placement.device=gpu", on=machine((0, 1), 16 * 10**9, (GPU_BYTES, GPU_BYTES))).learner
    assert part(gpu, "packing probe").size_bytes == probe
    assert gpu.bytes_on("host") == probe + part(gpu, "process").size_bytes


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999"), (1500, "1.5 k"), (134_515_008, "134.5 M"), (20_907_927_360, "20.91 G")]
)
def test_large_numbers_are_shortened(number: int, text: str) -> None:
    assert count(number) == text


def test_a_pushed_adapter_is_all_that_travels() -> None:
    """q_proj of 30 layers at rank 8: 30 x 8 x (576 + 576) x 2 B = 553 kB, instead of 269 MB.

    The object store need not hold whole weights.
    """
    adapters = [
        "learner.lora={rank: 8, targets: [q_proj]}",
        "weights.content=adapter",
        "placement.object_store_gib=0.01",
    ]
    result = planned(*adapters)
    (made,) = (item for item in result.common if item.name == "version made")
    assert made.size_bytes == 2 * 30 * 8 * (576 + 576) * 2
    assert places(result) == []
    assert places(planned(*adapters[:1], adapters[2])) == ["placement.object_store_gib"]
