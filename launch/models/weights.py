"""The files that hold a model's weights: which ones are loaded, and whether they are complete.

transformers loads model.safetensors, or else the shards that model.safetensors.index.json names. Other
safetensors in the folder (consolidated.safetensors, optimizer.safetensors) are no part of the model.
Only headers are read: a model of any size takes milliseconds.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
"""The first bytes of a file that Git LFS has not replaced by its content."""
_LONGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""
_AGAIN = "copy or download it again"


def weight_files(folder: Path) -> list[Path]:
    """The files that a folder's weights are loaded from, whether they exist or not; none without weights."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    return [folder / name for name in sorted(set(_weight_map(folder).values()))]


def tensors(file: Path) -> dict[str, Any] | None:
    """The tensors that a safetensors file declares, by name; None if its header cannot be read.

    The file begins with the length of its header (8 bytes, little-endian), followed by the header as JSON.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _LONGEST_HEADER_BYTES)))
    except (OSError, ValueError, struct.error, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    declared = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    return declared if all(map(_is_tensor, declared.values())) else None


def weight_mistakes(folder: Path) -> list[Mistake]:
    """What is wrong with a folder's weights, by the name of the file."""
    place = f"model folder {folder}"
    # A link whose target is gone is there too, and is said to be missing.
    if not os.path.lexists(folder / SINGLE) and not os.path.lexists(folder / INDEX):
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        rule = f"has no {SINGLE} and no {INDEX} beside {others[0]}" if others else "has no *.safetensors"
        return [Mistake(place, None, rule, "save the model as safetensors")]
    found = [(SINGLE, _damage(folder / SINGLE))] if os.path.lexists(folder / SINGLE) else []
    if os.path.lexists(folder / INDEX):
        found += _index_damage(folder)
    return [Mistake(place, None, f"{name} {damage[0]}", damage[1]) for name, damage in found if damage]


def file_damage(file: Path) -> tuple[str, str] | None:
    """What is wrong with any file of a model folder, and the remedy: absent, empty, or an LFS pointer."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(len(LFS_POINTER))
    except FileNotFoundError:
        return "is missing", _AGAIN
    except OSError as error:
        return f"cannot be read ({error.strerror})", "make it a readable file"
    if not beginning:
        return "is empty", _AGAIN
    if beginning == LFS_POINTER:
        return "is a Git LFS pointer, not the file itself", "run `git lfs pull` in that folder"
    return None


def _damage(file: Path) -> tuple[str, str] | None:
    """What is wrong with a safetensors file, and the remedy; None for a complete one."""
    if damage := file_damage(file):
        return damage
    declared = tensors(file)
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
    header_bytes = 8 + (struct.unpack("<Q", start)[0] if len(start) == 8 else 0)
    if declared is None:
        cut = 8 < size_bytes < header_bytes <= _LONGEST_HEADER_BYTES
        return ("is cut off within its header" if cut else "is no safetensors file"), _AGAIN
    if not declared:
        return "holds no tensor", "save the model again"
    try:
        wanted_bytes = header_bytes + max(int(tensor["data_offsets"][1]) for tensor in declared.values())
    except (LookupError, TypeError, ValueError):
        return "is no safetensors file", _AGAIN
    if size_bytes != wanted_bytes:
        return f"is cut off or damaged: it has {size_bytes:,} bytes, its header says {wanted_bytes:,}", _AGAIN
    return None


def _is_tensor(tensor: object) -> bool:
    match tensor:
        case {"dtype": str(), "shape": [*shape]}:
            return all(isinstance(size, int) and size >= 0 for size in shape)
    return False


def _index_damage(folder: Path) -> list[tuple[str, tuple[str, str] | None]]:
    """File name → what is wrong with it, for the index and the shards that it names."""
    if damage := file_damage(folder / INDEX):
        return [(INDEX, damage)]
    weight_map = _weight_map(folder)
    if not weight_map:
        return [(INDEX, ("is no index: it maps no tensor to a file of this folder", _AGAIN))]
    found: list[tuple[str, tuple[str, str] | None]] = []
    for name in sorted(set(weight_map.values())):
        damage = _damage(folder / name)
        listed = {tensor for tensor, file in weight_map.items() if file == name}
        if damage is None and (absent := sorted(listed - set(tensors(folder / name) or {}))):
            damage = (f"lacks {len(absent)} tensors of {INDEX}, the first is {absent[0]}", _AGAIN)
        found.append((name, damage))
    single = tensors(folder / SINGLE)
    if single is not None and set(single) != set(weight_map):
        rule = f"holds other tensors than {INDEX} names: the learner loads the one, the engines the other"
        found.append((SINGLE, (rule, "remove the one that is not the model's")))
    return found


def _weight_map(folder: Path) -> Mapping[str, str]:
    """Tensor → file name, as the index says; empty without an index, or with one that names other folders."""
    try:
        weight_map = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        names = set(weight_map.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    return weight_map if plain else {}


def count(folder: Path, element_bytes: Mapping[str, int]) -> tuple[int, int]:
    """Parameters in a folder's weights, and their size in bytes.

    element_bytes: dtype → bytes, of plain floats. 0 parameters without files or if a tensor is of another
    dtype; 0 of both if a file cannot be read.
    """
    parameters = 0
    size_bytes = 0
    plain = True
    for file in weight_files(folder):
        declared = tensors(file)
        if declared is None:
            return 0, 0
        for tensor in declared.values():
            numbers = math.prod(tensor["shape"])
            plain = plain and tensor["dtype"] in element_bytes
            parameters += numbers
            size_bytes += numbers * element_bytes.get(tensor["dtype"], 1)
    return (parameters if plain else 0), size_bytes
