"""What the files hold that a run is trained with, as hashes: a run that continues must find the same content,
wherever it lies and however its path is spelled.

Weights are hashed by their sizes and samples of their bytes, since reading all of a large model would take
minutes at every start. Another training, seed or precision changes nearly every byte, so samples show it.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash

from dynalign.configs.errors import Mistake

_SAMPLE_BYTES = 1 << 16
_SAMPLES = 256
"""Samples of a file of weights, evenly spaced, its first and last bytes included: 16 MiB of each file."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    "configuration": ("config.json", "generation_config.json"),
    "tokenizer": (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    "chat template": ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    "weights": ("*.safetensors", "*.safetensors.index.json"),
}
"""Part of a model folder → its files, as patterns."""


def model_hashes(folder: Path) -> dict[str, str]:
    """Part of a Hugging Face folder → hash of its files' names and contents, under the names that
    `content_mistakes` compares.

    Raises OSError if a file cannot be read.
    """
    return {
        f"model: {part}": _hash_of(
            folder, sorted(file for pattern in patterns for file in folder.glob(pattern))
        )
        for part, patterns in _PARTS.items()
    }


def model_hash(hashes: Mapping[str, str]) -> str:
    """One hash of a model's parts, of which each has one in `hashes` (`model_hashes`); empty without any."""
    parts = [value for name, value in hashes.items() if name.startswith("model: ")]
    return xxhash.xxh3_128_hexdigest("".join(parts).encode()) if parts else ""


def values_hashes(definition_hash: str, rubric_hash: str | None) -> dict[str, str]:
    """The same for the texts of the value. rubric_hash: None if the run's judge reads no rubric."""
    texts = {"judge.values: definition": definition_hash}
    return texts if rubric_hash is None else texts | {"judge.values: rubric": rubric_hash}


def content_mistakes(
    made_with: Mapping[str, str], found: Mapping[str, str], shown: Mapping[str, object]
) -> list[Mistake]:
    """One mistake per content that is another one than the checkpoint was made with.

    made_with: the hashes in the checkpoint's manifest; an earlier version wrote none. found: those of now.
    Only names that both have are compared. shown: setting → its value, for the message.
    """
    mistakes = []
    for name, before in made_with.items():
        if found.get(name, before) != before:
            setting, _, part = name.partition(": ")
            rule = f"the checkpoint was made with other content there ({part})"
            mistakes.append(
                Mistake(setting, shown.get(setting), rule, "put the same files back, or start a new run")
            )
    return mistakes


def _hash_of(folder: Path, files: Iterable[Path]) -> str:
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        _add(digest, file)
    return digest.hexdigest()


def _add(digest: xxhash.xxh3_128, file: Path) -> None:
    """Adds size and bytes of a file, or samples of them if it is large."""
    with file.open("rb") as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        digest.update(f"{size_bytes}\0".encode())
        if size_bytes <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(stream.read())
            return
        for sample in range(_SAMPLES):
            stream.seek((size_bytes - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
