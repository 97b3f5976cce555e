"""The files that a model folder's weights are loaded from, and the tensors that they declare.

transformers loads model.safetensors, or else the shards that model.safetensors.index.json names. Other
safetensors in the folder (consolidated.safetensors, optimizer.safetensors) are no part of the model. Only
headers are read: a model of any size takes milliseconds.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""


def weight_files(folder: Path) -> list[Path]:
    """The files that a folder's weights are loaded from, whether they exist or not; none without weights."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    return [folder / name for name in sorted(set(weight_map(folder).values()))]


def tensors(file: Path) -> dict[str, Any] | None:
    """The tensors that a safetensors file declares, by name; None if its header cannot be read.

    The file begins with the length of its header (8 bytes, little-endian), followed by the header as JSON.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, LONGEST_HEADER_BYTES)))
    except (OSError, ValueError, struct.error, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    declared = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    return declared if all(map(_is_tensor, declared.values())) else None


def weight_map(folder: Path) -> Mapping[str, str]:
    """Tensor → file name, as the index says; empty without an index, or with one that names other folders."""
    try:
        named = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        names = set(named.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    return named if plain else {}


def _is_tensor(tensor: object) -> bool:
    match tensor:
        case {"dtype": str(), "shape": [*shape]}:
            return all(isinstance(size, int) and size >= 0 for size in shape)
    return False
