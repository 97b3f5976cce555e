"""The figures of a model that decide what it costs, read from its folder without loading it."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import Mistake, UserError

_FLOATS = {"F64", "F32", "F16", "BF16"}
_LONGEST_HEADER_BYTES = 100_000_000
"""What the safetensors format itself allows."""


@dataclass(frozen=True)
class ModelShape:
    """parameters: tied ones once. hidden, queries, keys, mlp: widths in numbers per token; `keys` is kv_heads · head_dim, and `mlp`
    counts the experts that a token visits. vocabulary and positions in tokens."""

    parameters: int
    layers: int
    hidden: int
    queries: int
    keys: int
    mlp: int
    vocabulary: int
    positions: int

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """2 (a key and a value) · layers · kv_heads · head_dim · bytes per number."""
        return 2 * self.layers * self.keys * element_bytes

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Parameters of LoRA adapters: rank · (inputs + outputs) per layer and target."""
        widths = {
            "q_proj": self.hidden + self.queries,
            "k_proj": self.hidden + self.keys,
            "v_proj": self.hidden + self.keys,
            "o_proj": self.queries + self.hidden,
            "gate_proj": self.hidden + self.mlp,
            "up_proj": self.hidden + self.mlp,
            "down_proj": self.mlp + self.hidden,
        }
        return self.layers * rank * sum(widths.get(target, 2 * self.hidden) for target in targets)


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in a Hugging Face folder; parameters from the safetensors headers, or counted from the config where
    there are none (or where weights are stored quantized, so that their headers count packed bytes).

    :raises UserError: no config.json, or one that describes no causal language model.
    """
    place = f"model folder {folder}"
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        mistake = Mistake(place, None, f"has no readable config.json ({error})", "give a folder that transformers can load")
        raise UserError([mistake]) from error
    try:
        return _shape(config.get("text_config", config), _stored_parameters(folder))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        rule = f"its config.json describes no causal language model ({error!r})"
        raise UserError([Mistake(place, None, rule, "give a decoder model")]) from error


def _shape(config: Mapping[str, Any], stored: int | None) -> ModelShape:
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    visited = int(config.get("num_experts_per_tok") or 1) if experts > 1 else 1
    width = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    shape = ModelShape(
        parameters=0,
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        queries=heads * head,
        keys=int(config.get("num_key_value_heads") or heads) * head,
        mlp=visited * width,
        vocabulary=int(config["vocab_size"]),
        positions=int(config.get("max_position_embeddings") or 0),
    )
    tied = bool(config.get("tie_word_embeddings", False))
    return ModelShape(**vars(shape) | {"parameters": stored or _counted(shape, experts * width, experts, tied)})


def _counted(shape: ModelShape, mlp: int, experts: int, tied: bool) -> int:
    """Embeddings, and per layer: attention, gated MLPs of all experts, their router, two norms; and the last norm."""
    attention = 2 * shape.hidden * shape.queries + 2 * shape.hidden * shape.keys
    router = shape.hidden * experts if experts > 1 else 0
    layer = attention + 3 * shape.hidden * mlp + router + 2 * shape.hidden
    return shape.vocabulary * shape.hidden * (1 if tied else 2) + shape.layers * layer + shape.hidden


def _stored_parameters(folder: Path) -> int | None:
    """The sum over all tensors in the safetensors files; None without files, or if a tensor is no plain float."""
    parameters = 0
    for file in sorted(folder.glob("*.safetensors")):
        tensors = _header(file)
        if tensors is None or any(tensor["dtype"] not in _FLOATS for tensor in tensors.values()):
            return None
        parameters += sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    return parameters or None


def _header(file: Path) -> dict[str, Any] | None:
    """A safetensors file begins with its header's length (8 bytes, little-endian) and the header, JSON. None if it does not."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _LONGEST_HEADER_BYTES)))
    except (OSError, ValueError, struct.error):
        return None
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"} if isinstance(header, dict) else None
