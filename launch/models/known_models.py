"""Figures of the models that shipped runs name, for a plan before they are downloaded.

They are those of each model's own config.json.
"""

from typing import Any

from dynalign.launch.models.shape import ModelShape, shape_of

_QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-1.7B": _QWEN3
    | {
        "num_hidden_layers": 28,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-8B": _QWEN3
    | {
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "openai/gpt-oss-20b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 24,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "attention_bias": True,
        "vocab_size": 201_088,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4"},
    },
}


def known_shape(model: str) -> ModelShape | None:
    """The shape of a hub's model; None for one whose figures are not known here."""
    config = _CONFIGS.get(model)
    return None if config is None else shape_of(config)
