"""Whether the files that hold a model's weights are complete. Which ones these are is in
`learner/weight_files.py`."""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from dynalign.configs.errors import Mistake
from dynalign.learner.weight_files import (
    INDEX,
    LONGEST_HEADER_BYTES,
    SINGLE,
    tensors,
    weight_files,
    weight_map,
)

LFS_POINTER = b"version https://git-lfs"
"""The first bytes of a file that Git LFS has not replaced by its content."""
_AGAIN = "copy or download it again"


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
        cut = 8 < size_bytes < header_bytes <= LONGEST_HEADER_BYTES
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


def _index_damage(folder: Path) -> list[tuple[str, tuple[str, str] | None]]:
    """File name → what is wrong with it, for the index and the shards that it names."""
    if damage := file_damage(folder / INDEX):
        return [(INDEX, damage)]
    named = weight_map(folder)
    if not named:
        return [(INDEX, ("is no index: it maps no tensor to a file of this folder", _AGAIN))]
    found: list[tuple[str, tuple[str, str] | None]] = []
    for name in sorted(set(named.values())):
        damage = _damage(folder / name)
        listed = {tensor for tensor, file in named.items() if file == name}
        if damage is None and (absent := sorted(listed - set(tensors(folder / name) or {}))):
            damage = (f"lacks {len(absent)} tensors of {INDEX}, the first is {absent[0]}", _AGAIN)
        found.append((name, damage))
    single = tensors(folder / SINGLE)
    if single is not None and set(single) != set(named):
        rule = f"holds other tensors than {INDEX} names: the learner loads the one, the engines the other"
        found.append((SINGLE, (rule, "remove the one that is not the model's")))
    return found


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
