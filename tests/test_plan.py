"""The placement plan against figures worked by hand, and the figures that it refuses."""

import json
import struct
from pathlib import Path

import pytest

from configs.load import load_run
from configs.schema import RunSettings
from launch.machine import Machine
from launch.memory import Part, count
from launch.model_shape import ModelShape, read_shape
from launch.plan import ActorPlan, PlacementPlan, missing_gpus, plan, refusals
from launch.plan_text import plan_lines

SMOL = ModelShape(
    parameters=134_515_008, layers=30, hidden=576, queries=576, keys=192, mlp=1536, vocabulary=49_152, positions=8192
)
"""SmolLM2-135M."""

LAPTOP = Machine(cores=(0, 1), memory_bytes=16_000_000_000)
GPU_BYTES = 80 * 2**30


def run(*overrides: str, config: str = "quickstart") -> RunSettings:
    return load_run(config, overrides).settings


def planned(*overrides: str, machine: Machine | None = LAPTOP, shape: ModelShape = SMOL) -> PlacementPlan:
    return plan(run(*overrides), shape, machine, context_tokens=1200)


def part(actor: ActorPlan, name: str) -> Part:
    (found,) = (item for item in actor.memory if item.name == name)
    return found


def places(result: PlacementPlan) -> list[str]:
    return [mistake.place for mistake in refusals(result)]


def test_one_gib_of_key_values_holds_46592_tokens_of_the_small_model() -> None:
    """2 x 30 layers x 192 numbers x 2 bytes = 23,040 bytes per token, in whole blocks of 32 tokens: what vLLM reports."""
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
    """Actor and EngineCore together took 3.0 GB with 1 GiB of key-values."""
    assert 2.8 < planned("rollout.kv_cache_gib=1.0").rollout.bytes_on("host") / 1e9 < 3.2


def test_zero_stages_divide_one_more_part_each() -> None:
    sizes = {}
    for stage in range(4):
        learner = planned("learner.ranks=4", f"learner.zero_stage={stage}").learner
        sizes[stage] = [part(learner, name).size_bytes // 134_515_008 for name in ("optimizer", "gradients", "weights")]
    assert sizes == {0: [12, 6, 2], 1: [3, 6, 2], 2: [3, 1, 2], 3: [3, 1, 0]}


def test_adapters_are_all_that_is_trained() -> None:
    """q_proj: 576 + 576 numbers, v_proj: 576 + 192; times 30 layers, times rank 8."""
    adapters = 30 * 8 * (576 + 576 + 576 + 192)
    learner = planned("learner.lora={rank: 8, targets: [q_proj, v_proj]}").learner
    assert part(learner, "optimizer").size_bytes == adapters * 12
    assert part(learner, "weights").size_bytes == 134_515_008 * 2


def test_a_checkpoint_is_the_optimizer_the_weights_and_a_model_folder() -> None:
    result = planned("checkpoint.keep_last=2")
    assert result.checkpoint.size_bytes == 134_515_008 * (12 + 2 + 2)
    assert result.checkpoints == 3


def test_gradient_checkpointing_keeps_each_layer_s_input_and_one_layer() -> None:
    without, with_it = planned().learner, planned("learner.gradient_checkpointing=true").learner
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
        ((0, 1, 2, 3), ["rollout.engine_threads=2", "learner.threads=2"], {"rollout-0": (0, 1), "learner-0": (2, 3)}),
        ((0, 1), ["rollout.workers=2"], {"rollout-0": (0,), "rollout-1": (1,), "learner-0": (0,)}),
        ((0, 1), ["rollout.engine_threads=8"], {"rollout-0": (0, 1), "learner-0": (0,)}),
        ((0, 1), ["placement.mode=shared", "algorithm.max_staleness=0"], {"rollout-0": (0,), "learner-0": (0,)}),
    ],
)
def test_actors_have_cores_of_their_own_while_there_are_enough(
    cores: tuple[int, ...], overrides: list[str], expected: dict[str, tuple[int, ...]]
) -> None:
    assert planned(*overrides, machine=Machine(cores, 16_000_000_000)).cores == expected


def test_nothing_is_pinned_on_a_gpu_or_on_a_cluster_that_places_by_itself() -> None:
    assert planned("placement.device=gpu", machine=Machine((0, 1), 64_000_000_000, (GPU_BYTES,))).cores == {}
    assert planned(machine=None).cores == {}


@pytest.mark.parametrize(
    ("gpus", "overrides", "engines", "ranks", "share"),
    [
        (2, [], (0,), (1,), 1.0),
        (1, ["placement.rollout_gpu_fraction=0.4"], (0,), (0,), 0.4),
        (1, ["placement.mode=shared", "algorithm.max_staleness=0"], (0,), (0,), 0.5),
        (2, ["placement.mode=shared", "algorithm.max_staleness=0", "rollout.workers=2", "learner.ranks=2"], (0, 1), (0, 1), 0.5),
        (4, ["rollout.workers=3"], (0, 1, 2), (3,), 1.0),
    ],
)
def test_gpus_are_one_each_taken_in_turn_or_split(
    gpus: int, overrides: list[str], engines: tuple[int, ...], ranks: tuple[int, ...], share: float
) -> None:
    result = planned("placement.device=gpu", *overrides, machine=Machine((0,), 64_000_000_000, (GPU_BYTES,) * gpus))
    assert (result.rollout.gpus, result.learner.gpus, result.rollout.gpu_share) == (engines, ranks, share)
    assert places(result) == []


def test_actors_that_take_turns_keep_what_sleeps_in_host_memory() -> None:
    machine = Machine((0,), 64_000_000_000, (GPU_BYTES,))
    shared = planned("placement.device=gpu", "placement.mode=shared", "algorithm.max_staleness=0", machine=machine)
    split = planned("placement.device=gpu", machine=machine)
    assert shared.host_bytes - split.host_bytes == 134_515_008 * (2 + 2 + 12)


def test_a_split_gpu_must_hold_both_and_a_gpu_in_turn_only_one() -> None:
    small = Machine((0,), 64_000_000_000, (5_000_000_000,))
    settings = ["placement.device=gpu", "learner.token_budget=1024", "rollout.kv_cache_gib=2"]
    assert places(planned(*settings, machine=small)) == ["GPU memory of one rollout actor", "GPU memory of one learner actor"]
    assert places(planned(*settings, "placement.mode=shared", "algorithm.max_staleness=0", machine=small)) == []


def test_a_run_that_takes_more_gpus_than_there_are_is_refused_with_both_numbers() -> None:
    (mistake,) = missing_gpus(run(config="cluster"), (GPU_BYTES,))
    assert "take 16 GPUs, and this machine has 1" in mistake.rule
    assert missing_gpus(run(), ()) == []


def test_too_little_memory_is_refused_with_the_largest_part() -> None:
    (mistake,) = refusals(planned(machine=Machine((0, 1), 4_000_000_000)))
    assert (mistake.place, mistake.value) == ("memory", "4.0 GB free")
    assert "optimizer (134.5 M x 12 B)" in mistake.rule


def test_an_object_store_must_hold_two_versions_of_the_weights() -> None:
    (mistake,) = refusals(planned("placement.object_store_gib=0.5"))
    assert mistake.place == "placement.object_store_gib"
    assert "set placement.object_store_gib=1 or more" in mistake.remedy
    assert places(planned("placement.object_store_gib=0.51")) == []


def test_a_cache_must_hold_one_longest_context_and_the_model_too() -> None:
    assert places(plan(run("rollout.kv_cache_gib=0.02"), SMOL, LAPTOP, context_tokens=1200)) == ["rollout.kv_cache_gib"]
    assert places(plan(run(), SMOL, LAPTOP, context_tokens=8193)) == ["model"]
    assert places(plan(run(), SMOL, LAPTOP, context_tokens=8192)) == []


def test_a_running_cluster_is_asked_for_no_memory_of_this_machine() -> None:
    assert refusals(planned("rollout.workers=900", machine=None)) == []


def test_the_plan_prints_every_part_with_its_formula_in_aligned_columns() -> None:
    lines = plan_lines(planned())
    assert any("134.5 M x 12 B" in line for line in lines)
    ends = {line.index(" GB") for line in lines if " GB  " in line}
    assert len(ends) == 1
    assert lines[-1].startswith("step")


def test_a_gpu_s_plan_says_what_lies_on_the_gpu_and_what_on_the_host() -> None:
    machine = Machine((0,), 64_000_000_000, (GPU_BYTES,))
    text = "\n".join(plan_lines(planned("placement.device=gpu", "placement.rollout_gpu_fraction=0.4", machine=machine)))
    assert "GPU 0, 40% of it" in text
    assert "of the GPU, and 1.4 GB of the host" in text


@pytest.mark.parametrize(("number", "text"), [(999, "999"), (1500, "1.5 k"), (134_515_008, "134.5 M"), (20_907_927_360, "20.91 G")])
def test_large_numbers_are_shortened(number: int, text: str) -> None:
    assert count(number) == text


CONFIG = {
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def model_with(folder: Path, config: dict[str, object], tensors: dict[str, object] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        header = json.dumps(tensors).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def test_a_config_alone_counts_the_small_model_exactly(tmp_path: Path) -> None:
    assert read_shape(model_with(tmp_path, CONFIG)) == SMOL


def test_stored_tensors_are_counted_rather_than_computed(tmp_path: Path) -> None:
    tensors = {"__metadata__": {"format": "pt"}, "a": {"dtype": "BF16", "shape": [3, 5]}, "b": {"dtype": "F32", "shape": [7]}}
    assert read_shape(model_with(tmp_path, CONFIG, tensors)).parameters == 22


def test_packed_numbers_are_not_counted_as_parameters(tmp_path: Path) -> None:
    tensors = {"a": {"dtype": "U8", "shape": [3, 5]}}
    assert read_shape(model_with(tmp_path, CONFIG, tensors)).parameters == SMOL.parameters


def test_experts_are_all_stored_and_only_some_visited(tmp_path: Path) -> None:
    """gpt-oss-20b: 24 layers of 32 experts, 4 visited; its authors count 20.9 billion parameters."""
    experts = {"num_local_experts": 32, "num_experts_per_tok": 4, "hidden_size": 2880, "intermediate_size": 2880}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 24}
    shape = read_shape(model_with(tmp_path, CONFIG | experts | heads | {"vocab_size": 201_088, "tie_word_embeddings": False}))
    assert 20.8e9 < shape.parameters < 21.0e9
    assert shape.mlp == 4 * 2880


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"text_config": 3}', '{"hidden_size": "wide", "num_attention_heads": 9}'])
def test_a_config_of_something_else_is_refused_by_its_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_shape(tmp_path)


QWEN = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 40_960}
GPT_OSS = {"num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24}
MODELS: dict[str, dict[str, object]] = {
    "single-gpu": QWEN | {"num_attention_heads": 16, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
    "cluster": QWEN
    | {"num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "tie_word_embeddings": False},
    "paper": GPT_OSS
    | {"num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201_088, "max_position_embeddings": 131_072}
    | {"tie_word_embeddings": False},
}
"""The shipped GPU runs' models, as their authors describe them."""


@pytest.mark.parametrize(("name", "gpus"), [("single-gpu", 1), ("cluster", 16), ("paper", 12)])
def test_the_shipped_gpu_runs_fit_gpus_of_80_gb(tmp_path: Path, name: str, gpus: int) -> None:
    shape = read_shape(model_with(tmp_path, CONFIG | MODELS[name]))
    machine = Machine(tuple(range(64)), 10**12, (80 * 10**9,) * gpus)
    result = plan(run("placement.object_store_gib=100", config=name), shape, machine, context_tokens=12_000)
    assert refusals(result) == []
    assert result.learner.bytes_on("gpu") > 20e9
