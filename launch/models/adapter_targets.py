"""Whether a model has the layers that `learner.lora.targets` names: read from the headers of its weights."""

import json
from collections.abc import Iterator
from pathlib import Path

from dynalign.configs.errors import Mistake
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.schema import RunSettings
from dynalign.learner.weight_files import tensors, weight_files

PLACE = "learner.lora.targets"
_HEAD = "lm_head"
_EMBEDDINGS = ("embed_in", "embed_tokens", "tok_embeddings", "word_embeddings", "wpe", "wte")
"""Matrices that are looked up in and not multiplied with, in the spellings of public decoders."""


def target_mistakes(settings: RunSettings, folder: Path) -> list[Mistake]:
    """A mistake for each target that is the name of no linear layer; none where the files name no layer."""
    lora = settings.learner.lora
    layers = linear_layers(folder)
    if lora is None or not layers:
        return []
    tied = _tied(folder) or _HEAD not in layers
    found = []
    for target in lora.targets:
        if target == _HEAD and tied:
            rule = "its weight is that of the input embedding, so an adapter on it could not be published"
            found.append(Mistake(PLACE, target, rule, "take it out of the targets"))
        elif target not in layers:
            close = did_you_mean(target, layers)
            meant = f"did you mean {close}? This" if close else "this"
            rule = "no linear layer of the model has this name"
            found.append(Mistake(PLACE, target, rule, f"{meant} model has {', '.join(layers)}"))
    return found


def linear_layers(folder: Path) -> list[str]:
    """The last part of the name of each linear layer, sorted: its weight is a matrix."""
    return sorted({name for file in weight_files(folder) for name in _matrices(file)})


def _matrices(file: Path) -> Iterator[str]:
    for name, tensor in (tensors(file) or {}).items():
        layer = name.removesuffix(".weight")
        last = layer.rpartition(".")[2]
        if layer != name and len(tensor["shape"]) == 2 and last not in _EMBEDDINGS:
            yield last


def _tied(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return bool(config.get("text_config", config).get("tie_word_embeddings"))
    except (OSError, ValueError, AttributeError):
        return False  # read_shape says what is wrong with it
