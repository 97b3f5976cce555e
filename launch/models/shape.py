"""The figures of a model that decide what it costs, read from its folder without loading it."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake, UserError
from dynalign.launch.models.parameter_count import Counted, count_parameters

_ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LONGEST_HEADER_BYTES = 100_000_000
"""What the safetensors format itself allows."""
MXFP4_BYTES = 17 / 32
"""Per number: 4 bits, and 8 bits of scale for every 32 (OCP Microscaling Formats)."""
_TILE_HIDDEN, _TILE_WIDTH = 256, 128
"""What vLLM's kernels round experts of mxfp4 up to on a GPU (`mxfp4_round_up_hidden_size_and_intermediate_size`)."""


@dataclass(frozen=True)
class Release:
    """Weights that were released quantized, as an engine holds them. size_bytes: of the release. padding_bytes: what the kernels'
    tiles add."""

    method: str
    size_bytes: int
    padding_bytes: int


@dataclass(frozen=True)
class ModelShape:
    """parameters: tied ones once. hidden, queries, keys, mlp: widths in numbers per token; `keys` is kv_heads · head, and `mlp`
    counts the experts that a token visits. head: width of one attention head. routed: numbers per token that travel to experts and back.
    sinks: attention logits have one that gives nothing. vocabulary and positions in tokens. release: None for plain floats."""

    parameters: int
    layers: int
    hidden: int
    queries: int
    keys: int
    mlp: int
    vocabulary: int
    positions: int
    head: int = 64
    routed: int = 0
    sinks: bool = False
    release: Release | None = None

    @property
    def heads(self) -> int:
        return self.queries // self.head

    def kv_bytes_per_token(self, element_bytes: int, gpus: int = 1) -> int:
        """2 (a key and a value) · layers · kv_heads · head · bytes per number, on each of `gpus` that the heads are dealt over; a head
        that is not enough for all of them is on several."""
        kv_heads = max(self.keys // self.head // gpus, 1)
        return 2 * self.layers * kv_heads * self.head * element_bytes

    def engine_bytes(self, element_bytes: int) -> int:
        """The weights as an engine holds them: as released, or `element_bytes` per parameter."""
        return self.release.size_bytes if self.release else self.parameters * element_bytes

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
    there are none, or where weights are stored quantized, so that their headers count packed bytes.

    :raises UserError: no config.json, or one that describes no causal language model.
    """
    place = f"model folder {folder}"
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        mistake = Mistake(
            place, None, f"has no readable config.json ({error})", "give a folder that transformers can load"
        )
        raise UserError([mistake]) from error
    try:
        return shape_of(config, *_stored(folder))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        rule = f"its config.json describes no causal language model ({error!r})"
        raise UserError([Mistake(place, None, rule, "give a decoder model")]) from error


def shape_of(config: Mapping[str, Any], stored_parameters: int = 0, stored_bytes: int = 0) -> ModelShape:
    """The shape that a config.json describes.

    :param stored_parameters: of plain floats in the model's files; 0: count them. :param stored_bytes: of all its tensors; 0: unknown.
    :raises KeyError, TypeError, ValueError, AttributeError: it describes something else.
    """
    quantization = config.get("quantization_config")
    config = config.get("text_config", config)
    counted = count_parameters(config)
    layers, hidden = int(config["num_hidden_layers"]), int(config["hidden_size"])
    release = (
        None
        if quantization is None
        else _release(str(quantization.get("quant_method", "")), counted, hidden, stored_bytes)
    )
    return ModelShape(
        parameters=stored_parameters or counted.parameters,
        layers=layers,
        hidden=hidden,
        queries=counted.queries,
        keys=counted.keys,
        mlp=counted.visited * counted.width,
        vocabulary=int(config["vocab_size"]),
        positions=int(config.get("max_position_embeddings") or 0),
        head=counted.head,
        routed=counted.visited * hidden if counted.expert_parameters else 0,
        sinks=config.get("model_type") == "gpt_oss",
        release=release,
    )


def _release(method: str, counted: Counted, hidden: int, stored_bytes: int) -> Release:
    """mxfp4 packs the experts' matrices and nothing else; another method is known by the size of its files alone."""
    if method != "mxfp4":
        return Release(method, stored_bytes or 2 * counted.parameters, 0)
    packed = round(counted.expert_parameters * MXFP4_BYTES)
    plain = 2 * (counted.parameters - counted.expert_parameters)
    tiled = _round_up(hidden, _TILE_HIDDEN) * _round_up(counted.width, _TILE_WIDTH) / (hidden * counted.width)
    return Release(method, stored_bytes or packed + plain, round(packed * (tiled - 1)))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _stored(folder: Path) -> tuple[int, int]:
    """Parameters of the tensors in the safetensors files, and their bytes; 0 parameters without files, or if a tensor is no plain
    float, and 0 bytes if a file cannot be read."""
    parameters, size_bytes, plain = 0, 0, True
    for file in sorted(folder.glob("*.safetensors")):
        tensors = _header(file)
        if tensors is None:
            return 0, 0
        for tensor in tensors.values():
            numbers = math.prod(tensor["shape"])
            plain = plain and tensor["dtype"] in _ELEMENT_BYTES
            parameters += numbers
            size_bytes += numbers * _ELEMENT_BYTES.get(tensor["dtype"], 1)
    return (parameters if plain else 0), size_bytes


def _header(file: Path) -> dict[str, Any] | None:
    """A safetensors file begins with its header's length (8 bytes, little-endian) and the header, JSON. None if it does not."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _LONGEST_HEADER_BYTES)))
    except (OSError, ValueError, struct.error):
        return None
    return (
        {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        if isinstance(header, dict)
        else None
    )
