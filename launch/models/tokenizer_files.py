"""What a tokenizer's files show without loading them: damage, and tokens that the model has no row for."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake
from dynalign.launch.models.weights import file_damage
from dynalign.learner.weight_files import tensors, weight_files

_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
_BEGINNING_BYTES = 4_000_000
"""As much of tokenizer.json as the added tokens can take, which stand before its vocabulary."""


def tokenizer_mistakes(folder: Path) -> list[Mistake]:
    """The damaged files of a tokenizer, and the control tokens that no row of the embedding belongs to."""
    found: list[tuple[str, str]] = []
    for file in (folder / name for name in _FILES):
        damage = file_damage(file) if os.path.lexists(file) else None
        if damage is None and file.name == "tokenizer.json" and file.exists() and not _is_closed(file):
            damage = ("is cut off: its last character is no }", "copy or download it again")
        if damage is not None:
            found.append((f"{file.name} {damage[0]}", damage[1]))
    if not found:
        found += _beyond_the_embedding(folder)
    return [Mistake(f"model folder {folder}", None, rule, remedy) for rule, remedy in found]


def _is_closed(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 1000))
        return stream.read().rstrip().endswith(b"}")


def _beyond_the_embedding(folder: Path) -> Iterator[tuple[str, str]]:
    """The tokens that the chat template writes, and have ids beyond the embedding.

    Others may lie there: Gemma 3 has a token for images that its text models have no row for."""
    config = _json(folder / "config.json")
    text_config = config.get("text_config", config)
    vocabulary = text_config.get("vocab_size") if isinstance(text_config, Mapping) else None
    if not isinstance(vocabulary, int):
        return
    remedy = "enlarge the embedding to the tokenizer (resize_token_embeddings), and save the model again"
    rows = _embedding_rows(folder)
    if rows is not None and rows != vocabulary:
        yield f"its embedding has {rows:,} rows, and vocab_size in config.json is {vocabulary:,}", remedy
        vocabulary = min(rows, vocabulary)
    template = _template(folder)
    beyond = {
        token: text for token, text in _added_tokens(folder) if token >= vocabulary and text in template
    }
    if beyond:
        first = min(beyond)
        rule = (
            f"its embedding has {vocabulary:,} rows, and its chat template writes the token {beyond[first]!r}"
        )
        yield f"{rule}, whose id is {first:,}", remedy


def _embedding_rows(folder: Path) -> int | None:
    """Rows of the input embedding, by the name that most decoders give it; None if it has another one."""
    for file in weight_files(folder):
        for name, tensor in (tensors(file) or {}).items():
            if name.endswith("embed_tokens.weight") and tensor["shape"]:
                return int(tensor["shape"][0])
    return None


def _template(folder: Path) -> str:
    """The source of all chat templates of a folder."""
    try:
        return (folder / "chat_template.jinja").read_text("utf-8")
    except (OSError, ValueError):
        return json.dumps(_json(folder / "tokenizer_config.json").get("chat_template"), ensure_ascii=False)


def _added_tokens(folder: Path) -> Iterator[tuple[int, str]]:
    """Id and text of every added token that the files name."""
    decoder = _json(folder / "tokenizer_config.json").get("added_tokens_decoder")
    for token, added in decoder.items() if isinstance(decoder, Mapping) else ():
        if str(token).isdigit() and isinstance(added, Mapping):
            yield int(token), str(added.get("content"))
    try:
        with (folder / "tokenizer.json").open("rb") as stream:
            text = stream.read(_BEGINNING_BYTES).decode("utf-8", errors="ignore")
        listed = json.JSONDecoder().raw_decode(text, text.index("[", text.index('"added_tokens"')))[0]
    except (OSError, ValueError):
        return
    for added in listed:
        if isinstance(added, Mapping) and isinstance(added.get("id"), int):
            yield added["id"], str(added.get("content"))


def _json(file: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty if there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
