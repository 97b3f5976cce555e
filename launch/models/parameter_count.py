"""How many parameters a config.json describes: Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3-MoE, gpt-oss, exactly; close to it for
decoders like them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counted:
    """queries, keys: widths of one token's queries and keys. visited: experts that a token visits, 1 without experts. width: of one
    expert, or of the dense MLP. expert_parameters: the experts' matrices in all layers."""

    parameters: int
    head: int
    queries: int
    keys: int
    visited: int
    width: int
    expert_parameters: int


def count_parameters(config: Mapping[str, Any]) -> Counted:
    """Embeddings, the last norm, and per layer: attention, gated MLP or experts with their router, two norms.

    :raises KeyError, TypeError, ValueError, AttributeError: it describes something else.
    """
    kind = str(config.get("model_type") or "")
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    queries, keys = heads * head, int(config.get("num_key_value_heads") or heads) * head
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
    biases = queries + 2 * keys if kind == "qwen2" else 0
    if config.get("attention_bias"):
        biases = queries + 2 * keys + hidden
    norms = 2 * head if kind.startswith("qwen3") else 0
    sinks = queries // head if kind == "gpt_oss" else 0
    return 2 * hidden * queries + 2 * hidden * keys + biases + norms + sinks


def _sparse_layers(config: Mapping[str, Any], layers: int) -> int:
    every, dense = int(config.get("decoder_sparse_step") or 1), set(config.get("mlp_only_layers") or ())
    return sum(1 for layer in range(layers) if layer not in dense and (layer + 1) % every == 0)


def _beside_experts(kind: str, experts: int, hidden: int, width: int) -> int:
    """The router, and in gpt-oss its biases and those of the experts."""
    return hidden * experts + (experts * (1 + 2 * width + hidden) if kind == "gpt_oss" else 0)
