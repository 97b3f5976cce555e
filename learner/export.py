"""A trained policy as a Hugging Face folder: the initial folder with its weights replaced.

Tokenizer, chat template, generation settings and model code are the files of the initial model, so training
changes nothing about how the model is called.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 4 << 30
"""Most bytes of weights in one file, which bounds the memory that an export needs."""
_TEMPLATES = "additional_chat_templates"
"""The folder in which transformers saves the templates beside the default one."""
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}
"""Files of the initial folder that hold weights, and so are not copied."""


class _Shards:
    """Writes safetensors files of bounded size.

    Their final names hold their number, so `finish` renames them.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
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
        self._tensors = {}
        self._bytes = 0

    def finish(self) -> None:
        """Give the files the names that transformers and vLLM look for: one file, or numbered files with an
        index.
        """
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
    tensors: Iterable[tuple[str, Tensor]],
    model_folder: Path,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
    stop_ids: Sequence[int] = (),
) -> None:
    """Write `tensors` as bfloat16, and every file of `model_folder` that holds no weights, also additional
    chat templates, into `folder`, and create it.

    tensors: name and value of each weight; a value needs to be valid only until the next one is requested.
    shard_bytes: most bytes of weights in one file. stop_ids: token ids that ended a completion in training,
    beside those that the model's files name; they become the model's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in model_folder.iterdir():
        if file.is_file() and file.suffix not in WEIGHT_SUFFIXES and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
    if (model_folder / _TEMPLATES).is_dir():
        shutil.copytree(model_folder / _TEMPLATES, folder / _TEMPLATES, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for stale in ("torch_dtype", "quantization_config"):
        config.pop(stale, None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2))
    if stop_ids:
        _add_stops(folder / "generation_config.json", config, stop_ids)
    shards = _Shards(folder, shard_bytes)
    for name, tensor in tensors:
        # Copy even if nothing is cast: the tensor is valid only until the next one is requested.
        shards.add(name, tensor.to("cpu", torch.bfloat16, copy=True).contiguous())
    shards.finish()


def _add_stops(file: Path, config: Mapping[str, Any], stop_ids: Sequence[int]) -> None:
    """Add end tokens to the generation settings. Where there are none, a reader takes those of `config`."""
    of_text = dict(config) | (config.get("text_config") or {})
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    settings = {name: of_text[name] for name in names if of_text.get(name) is not None}
    if file.exists():
        settings |= json.loads(file.read_text())
    named = settings.get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    settings["eos_token_id"] = list(dict.fromkeys([*ends, *stop_ids]))
    file.write_text(json.dumps(settings, indent=2))
