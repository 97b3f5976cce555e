"""A trained policy as a Hugging Face folder: the initial folder with its weights replaced.

Tokenizer, chat template, generation settings and model code are the initial model's own files, so nothing about how the model is
called changes with training.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 4 << 30
"""Weights per file; bounds the memory that an export needs."""
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}


class _Shards:
    """Safetensors files of bounded size, named when their number is known."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0
        self._names: list[list[str]] = []
        self._total_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        if self._bytes + tensor.nbytes > self._shard_bytes:
            self._write()
        self._tensors[name] = tensor
        self._bytes += tensor.nbytes

    def _write(self) -> None:
        if self._tensors:
            save_file(
                self._tensors, self._folder / f"shard-{len(self._names)}.part", metadata={"format": "pt"}
            )
            self._names.append(list(self._tensors))
            self._total_bytes += self._bytes
        self._tensors, self._bytes = {}, 0

    def finish(self) -> None:
        """The names that transformers and vLLM look for: one file, or numbered files with an index."""
        self._write()
        if len(self._names) == 1:
            (self._folder / "shard-0.part").rename(self._folder / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._names):
            file = f"model-{number + 1:05d}-of-{len(self._names):05d}.safetensors"
            (self._folder / f"shard-{number}.part").rename(self._folder / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


@torch.no_grad()
def export_model(
    tensors: Iterable[tuple[str, Tensor]], model_folder: Path, folder: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes `tensors`, as bfloat16, and everything but the weights of `model_folder` into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in model_folder.iterdir():
        if file.is_file() and file.suffix not in WEIGHT_SUFFIXES and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    for stale in ("torch_dtype", "quantization_config"):
        config.pop(stale, None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2))
    shards = _Shards(folder, shard_bytes)
    for name, tensor in tensors:
        # A copy, also where nothing is cast: the tensor is only lent until the next one is asked for.
        shards.add(name, tensor.to("cpu", torch.bfloat16, copy=True).contiguous())
    shards.finish()
