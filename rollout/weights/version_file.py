"""A weight version in one file, all buckets in order, and an adapter as the folder that engines read."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.weights.version import AdapterEntry, Manifest, TensorEntry

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def tensors_in(file: Path, manifest: Manifest) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything in a version's file.

    The tensors are views of the mapped file: keep the file until they have been copied."""
    if not manifest.tensors:
        return
    # Copy-on-write, since torch warns of memory that cannot be written.
    flat = torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c"))
    for entry in manifest.tensors:
        yield entry.name, tensor_of(flat, entry, manifest.file_offset_bytes(entry))


def tensor_of(flat: Tensor, entry: TensorEntry, offset_bytes: int) -> Tensor:
    """A tensor of a version as a view of flat bytes (uint8), in which it begins at `offset_bytes`."""
    return flat[offset_bytes : offset_bytes + entry.size_bytes].view(_DTYPES[entry.dtype]).view(entry.shape)


def write_adapter(folder: Path, adapter: AdapterEntry, tensors: dict[str, Tensor]) -> None:
    """Writes the adapter as peft does: `adapter_config.json` and `adapter_model.safetensors`."""
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": list(adapter.targets),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def untrained_adapter(model_folder: Path, adapter: AdapterEntry) -> dict[str, Tensor]:
    """The factors of an adapter that changes nothing (B = 0), for the target layers of a model folder.

    Raises UserError when no layer has a name in `adapter.targets`."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(model_folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                layer = name.removesuffix(".weight")
                if layer != name and layer.rpartition(".")[2] in adapter.targets:
                    outputs, inputs = weights.get_slice(name).get_shape()
                    tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.zeros(adapter.rank, inputs)
                    tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.zeros(outputs, adapter.rank)
    if not tensors:
        rule = f"no layer of {model_folder} has one of these names"
        raise UserError(
            [Mistake("learner.lora.targets", list(adapter.targets), rule, "name linear layers of the model")]
        )
    return tensors
