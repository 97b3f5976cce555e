"""A model's figures from its folder, against the models that transformers builds from the same config."""

import json
import math
import operator
import struct
from pathlib import Path

import pytest

from dynalign.launch.models.known_models import _CONFIGS as KNOWN
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import ModelShape, Release, read_shape, shape_of

SMOL = ModelShape(
    parameters=134_515_008,
    layers=30,
    hidden=576,
    queries=576,
    keys=192,
    mlp=1536,
    vocabulary=49_152,
    positions=8192,
)
"""SmolLM2-135M."""

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

CONFIGS: dict[str, dict[str, object]] = {
    "LlamaConfig": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 8},
    "MistralConfig": {},
    "MixtralConfig": {"num_hidden_layers": 3},
    "Qwen2Config": {"tie_word_embeddings": True},
    "Qwen3Config": {
        "head_dim": 128,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 6144,
    },
    "Qwen3MoeConfig": {
        "head_dim": 128,
        "num_hidden_layers": 6,
        "mlp_only_layers": [0],
        "decoder_sparse_step": 2,
    },
    "GptOssConfig": {"num_hidden_layers": 24, "num_local_experts": 32},
}
"""transformers' config class → what differs from its defaults."""


def model_with(folder: Path, config: dict[str, object], tensors: dict[str, object] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        header = json.dumps(tensors).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.mark.parametrize("name", list(CONFIGS))
def test_parameters_are_counted_as_transformers_builds_them(tmp_path: Path, name: str) -> None:
    import torch
    import transformers

    config = operator.attrgetter(name)(transformers)(**CONFIGS[name])
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = read_shape(tmp_path)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    attention = model.model.layers[0].self_attn
    assert (shape.queries, shape.keys) == (attention.q_proj.out_features, attention.k_proj.out_features)
    assert shape.heads == config.num_attention_heads


@pytest.mark.parametrize("name", list(KNOWN))
def test_the_models_of_the_shipped_runs_have_the_figures_that_transformers_builds(name: str) -> None:
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**KNOWN[name])
        )
    shape = known_shape(name)
    attention = model.model.layers[0].self_attn
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    widths = [(layer.in_features, layer.out_features) for layer in operator.attrgetter(*targets)(attention)]
    assert shape.adapter_parameters(16, targets) == len(model.model.layers) * 16 * sum(map(sum, widths))


GPT_OSS_20B: dict[str, object] = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 24,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201_088,
    "max_position_embeddings": 131_072,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "mxfp4"},
}


def test_a_release_in_mxfp4_has_four_bits_and_a_scale_of_eight_per_32_numbers_of_its_experts() -> None:
    """24 layers x 32 experts x 3 matrices of 2,880 x 2,880 = 19,110,297,600 numbers at 17/32 bytes.

    The other 1,804,459,584 have 2 bytes each: 13.76 GB, the size of its files. vLLM's kernels pad each matrix
    to 3,072 x 2,944: 749,568 numbers more.
    """
    shape = shape_of(GPT_OSS_20B)
    assert shape.parameters == 20_914_757_184
    experts = 24 * 32 * 3 * 2880 * 2880
    assert shape.release == Release(
        "mxfp4", experts * 17 // 32 + (20_914_757_184 - experts) * 2, 24 * 32 * 3 * 749_568 * 17 // 32
    )
    assert 13.75e9 < shape.engine_bytes(2) < 13.77e9
    assert (shape.mlp, shape.routed, shape.sinks) == (4 * 2880, 4 * 2880, True)


def test_a_config_alone_counts_the_small_model_exactly(tmp_path: Path) -> None:
    assert read_shape(model_with(tmp_path, CONFIG)) == SMOL


def test_stored_tensors_are_counted_rather_than_computed(tmp_path: Path) -> None:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [3, 5]},
        "b": {"dtype": "F32", "shape": [7]},
    }
    assert read_shape(model_with(tmp_path, CONFIG, tensors)).parameters == 22


def test_packed_numbers_are_not_counted_as_parameters_but_as_bytes(tmp_path: Path) -> None:
    packed = {"a": {"dtype": "U8", "shape": [3, 5]}, "b": {"dtype": "BF16", "shape": [4]}}
    shape = read_shape(model_with(tmp_path, GPT_OSS_20B, packed))
    assert shape.parameters == 20_914_757_184
    assert shape.engine_bytes(2) == 3 * 5 + 4 * 2


def test_a_file_that_is_no_safetensors_leaves_the_config_s_figures(tmp_path: Path) -> None:
    (model_with(tmp_path, CONFIG) / "model.safetensors").write_bytes(b"none")
    assert read_shape(tmp_path) == SMOL


def test_key_values_are_dealt_over_gpus_down_to_one_head_each() -> None:
    """Three key-value heads: 23,040 bytes on one GPU, a third on three, and no less on nine."""
    assert [SMOL.kv_bytes_per_token(2, gpus) for gpus in (1, 3, 9)] == [23_040, 7680, 7680]


LLAMA = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "vocab_size": 320,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"text_config": 3}',
        '{"hidden_size": "wide", "num_attention_heads": 9}',
        *(
            json.dumps(LLAMA | {name: value})
            for name, value in (
                ("num_attention_heads", 0),
                ("num_hidden_layers", -1),
                ("hidden_size", 0),
                ("hidden_size", 1),
                ("vocab_size", 0),
                ("vocab_size", math.inf),
                ("head_dim", -64),
            )
        ),
    ],
)
def test_a_config_of_something_else_is_refused_by_its_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_shape(tmp_path)
