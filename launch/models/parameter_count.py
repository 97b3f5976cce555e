"""How many parameters a config.json describes.

The count is exact for Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3-MoE and gpt-oss, and close for similar
decoders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counted:
    """Parameters and widths that follow from a config.json. Widths are in numbers per token."""

    parameters: int
    """All parameters; tied embeddings are counted once."""
    head: int
    """Width of one attention head."""
    queries: int
    """Width of a token's queries: heads times head."""
    keys: int
    """Width of a token's keys: key-value heads times head."""
    visited: int
    """Experts that process a token; 1 for a dense MLP."""
    width: int
    """Inner width of one expert, or of the dense MLP."""
    expert_parameters: int
    """Parameters of the experts' matrices in all layers."""


def count_parameters(config: Mapping[str, Any]) -> Counted:
    """Counts embeddings, the last norm, and per layer attention, two norms, and MLP or experts with router.

    Raises KeyError, TypeError, ValueError or AttributeError for a config of another kind of model.
    """
    kind = str(config.get("model_type") or "")
    hidden = int(config["hidden_size"])
    layers = int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    queries = heads * head
    keys = int(config.get("num_key_value_heads") or heads) * head
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 0)
    dense = int(config["intermediate_size"])
    width = int(config.get("moe_intermediate_size") or dense) if experts else dense
    sparse = _sparse_layers(config, layers) if experts else 0
    expert_parameters = sparse * experts * 3 * hidden * width
    parameters = (
        int(config["vocab_size"]) * hidden * (1 if config.get("tie_word_embeddings", False) else 2)
        + hidden
        + layers * (_attention(config, kind, hidden, head, queries, keys) + 2 * hidden)
        + (layers - sparse) * (3 * hidden * dense + (2 * dense + hidden if config.get("mlp_bias") else 0))
        + expert_parameters
        + sparse * _beside_experts(kind, experts, hidden, width)
    )
    visited = int(config.get("num_experts_per_tok") or 1) if experts else 1
    return Counted(parameters, head, queries, keys, visited, width, expert_parameters)


def _attention(config: Mapping[str, Any], kind: str, hidden: int, head: int, queries: int, keys: int) -> int:
    """One layer's attention: four projections, with the biases, norms and sinks that the family has."""
    biases = queries + 2 * keys if kind == "qwen2" else 0
    if config.get("attention_bias"):
        biases = queries + 2 * keys + hidden
    norms = 2 * head if kind.startswith("qwen3") else 0
    sinks = queries // head if kind == "gpt_oss" else 0
    return 2 * hidden * queries + 2 * hidden * keys + biases + norms + sinks


def _sparse_layers(config: Mapping[str, Any], layers: int) -> int:
    """How many layers have experts instead of a dense MLP."""
    every = int(config.get("decoder_sparse_step") or 1)
    dense = set(config.get("mlp_only_layers") or ())
    return sum(1 for layer in range(layers) if layer not in dense and (layer + 1) % every == 0)


def _beside_experts(kind: str, experts: int, hidden: int, width: int) -> int:
    """One layer's router, and in gpt-oss its biases and those of the experts."""
    return hidden * experts + (experts * (1 + 2 * width + hidden) if kind == "gpt_oss" else 0)
