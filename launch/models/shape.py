"""The figures of a model that decide how much memory it takes, read from its folder without loading it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake, UserError
from dynalign.launch.models.parameter_count import Counted, count_parameters
from dynalign.launch.models.weights import count

_ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MXFP4_BYTES = 17 / 32
"""Bytes per number: 4 bits, and 8 bits of scale for every 32 numbers (OCP Microscaling Formats)."""
_TILE_HIDDEN = 256
"""The multiple to which vLLM's kernels round the hidden size of mxfp4 experts on a GPU.

From vLLM's `mxfp4_round_up_hidden_size_and_intermediate_size`, as the next one.
"""
_TILE_WIDTH = 128
"""The multiple to which they round an expert's inner width."""

_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of RoPE scaling with the scaled length in `max_position_embeddings`, from vLLM's
`_get_and_verify_max_len`."""


@dataclass(frozen=True)
class Release:
    """Weights that were released quantized, as an engine holds them."""

    method: str
    """The quantization method, such as `mxfp4`."""
    size_bytes: int
    """Size of the released weights."""
    padding_bytes: int
    """What rounding up to the kernels' tiles adds."""


@dataclass(frozen=True)
class ModelShape:
    """The figures of a decoder. Widths are in numbers per token.

    SmolLM2-135M is `ModelShape(parameters=134_515_008, layers=30, hidden=576, queries=576, keys=192,
    mlp=1536, vocabulary=49_152, positions=8192)`.
    """

    parameters: int
    """All parameters; tied embeddings are counted once."""
    layers: int
    """Decoder layers."""
    hidden: int
    """Width of the residual stream."""
    queries: int
    """Width of a token's queries: heads times head."""
    keys: int
    """Width of a token's keys: key-value heads times head."""
    mlp: int
    """Inner width of the MLP, or of all experts together that process a token."""
    vocabulary: int
    """Tokens in the vocabulary."""
    positions: int
    """The longest context in tokens; 0 where it is unknown."""
    head: int = 64
    """Width of one attention head."""
    routed: int = 0
    """Numbers per token that are sent to experts and back; 0 without experts."""
    sinks: bool = False
    """Whether attention has a sink: an extra logit that takes weight and adds no value."""
    release: Release | None = None
    """The quantized release; None for plain floats."""

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.queries // self.head

    def kv_bytes_per_token(self, element_bytes: int, gpus: int = 1) -> int:
        """Key-value cache per token: 2 (a key and a value) · layers · kv_heads · head · bytes per number.

        gpus: how many the heads are divided over; the figure is that of each. With fewer heads than GPUs, a
        head is on several.
        """
        kv_heads = max(self.keys // self.head // gpus, 1)
        return 2 * self.layers * kv_heads * self.head * element_bytes

    def engine_bytes(self, element_bytes: int) -> int:
        """Size of the weights in an engine: as released, or `element_bytes` per parameter."""
        return self.release.size_bytes if self.release else self.parameters * element_bytes

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Parameters of LoRA adapters: rank · (inputs + outputs), summed over layers and targets."""
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
    """The shape of the model in a Hugging Face folder.

    The number of parameters comes from the headers of the weights' files. Without such files, or for
    quantized weights, whose headers count packed bytes, it is computed from the config. Raises UserError
    without a config.json, or for one that describes no causal language model.
    """
    where = f"model folder {folder}"
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        rule = f"has no readable config.json ({error})"
        remedy = "give a folder that transformers can load"
        raise UserError([Mistake(where, None, rule, remedy)]) from error
    try:
        return shape_of(config, *count(folder, _ELEMENT_BYTES))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        rule = f"its config.json describes no causal language model ({error!r})"
        raise UserError([Mistake(where, None, rule, "give a decoder model")]) from error


def shape_of(config: Mapping[str, Any], stored_parameters: int = 0, stored_bytes: int = 0) -> ModelShape:
    """The shape that a config.json describes.

    stored_parameters: parameters in the model's files, if plain floats; 0 to compute them from the config.
    stored_bytes: size of all tensors in the files; 0 where it is unknown.
    Raises KeyError, TypeError, ValueError or AttributeError for a config of another kind of model.
    """
    quantization = config.get("quantization_config")
    config = config.get("text_config", config)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if int(config[name]) < 1:
            raise ValueError(f"{name} is {config[name]}")
    counted = count_parameters(config)
    hidden = int(config["hidden_size"])
    if counted.head < 1:
        raise ValueError(f"attention heads have a width of {counted.head}")
    release = None
    if quantization is not None:
        release = _release(str(quantization.get("quant_method", "")), counted, hidden, stored_bytes)
    return ModelShape(
        parameters=stored_parameters or counted.parameters,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        queries=counted.queries,
        keys=counted.keys,
        mlp=counted.visited * counted.width,
        vocabulary=int(config["vocab_size"]),
        positions=_positions(config),
        head=counted.head,
        routed=counted.visited * hidden if counted.expert_parameters else 0,
        sinks=config.get("model_type") == "gpt_oss",
        release=release,
    )


def _positions(config: Mapping[str, Any]) -> int:
    """The longest context in tokens, as vLLM derives it: some kinds of RoPE scaling lengthen it.

    Others (YaRN, Llama 3, LongRoPE) and Gemma 3 give the scaled length in `max_position_embeddings`. The
    scaling is one for all layers or, by their kind, one for each.
    """
    positions = int(config.get("max_position_embeddings") or 0)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = [each for each in scaling.values() if isinstance(each, Mapping)] or [scaling]
    factor = 1.0
    for each in kinds:
        kind = each.get("rope_type", each.get("type", "default"))
        if kind not in _SCALED_ALREADY:
            factor = float(each.get("factor") or factor)
    return positions if "gemma3" in str(config.get("model_type")) else int(positions * factor)


def _release(method: str, counted: Counted, hidden: int, stored_bytes: int) -> Release:
    """The release of quantized weights.

    mxfp4 packs only the experts' matrices; of other methods only the size counts.
    """
    if method != "mxfp4":
        return Release(method, stored_bytes or 2 * counted.parameters, 0)
    packed = round(counted.expert_parameters * MXFP4_BYTES)
    plain = 2 * (counted.parameters - counted.expert_parameters)
    tiled = _round_up(hidden, _TILE_HIDDEN) * _round_up(counted.width, _TILE_WIDTH) / (hidden * counted.width)
    return Release(method, stored_bytes or packed + plain, round(packed * (tiled - 1)))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
