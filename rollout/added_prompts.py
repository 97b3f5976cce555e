"""Prompts that come to a run after its start: one file for each set, named by the hash of its content.

A shell writes the file and asks the run to take it (`run_folder/requests.py`). The ledger takes it at the end
of a step (`actors/ledger/prompt_intake.py`); its log then holds the hash, so that a run which goes on reads
the same prompts or refuses to go on.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import RecordError, one_line
from dynalign.rollout.prompts import Prompt
from dynalign.run_folder import durable, layout

FORMAT = 1


@dataclass(frozen=True)
class AddedPrompts:
    """One set of prompts for one run.

    Example: `AddedPrompts("0123456789abcdef", "", "refreshes/refresh-1", (Prompt(…),), dropped=(3, 17))`.
    """

    prompts_hash: str
    """Content hash of the prompts that the run began with: no other run takes the set."""
    after: str
    """Content hash of the set that the run has taken before this one; empty if it took none."""
    origin: str
    """Where the set was made, for people."""
    prompts: tuple[Prompt, ...]
    """What is added to the training split, in the order of the positions."""
    dropped: tuple[int, ...]
    """Positions that are not drawn any more, ascending."""

    def encode(self) -> bytes:
        """The content of the file: the same for equal sets."""
        body = {"format": FORMAT, **asdict(self)}
        return (json.dumps(body, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def content_hash(self) -> str:
        """16 hexadecimal characters of SHA-256 over the content of the file."""
        return hash_of(self.encode())


def write(run_folder: Path, added: AddedPrompts) -> str:
    """Writes the file of a set; returns its content hash. Raises OSError."""
    file = layout.added_prompts_file(run_folder, added.content_hash)
    file.parent.mkdir(exist_ok=True)
    durable.write(file, added.encode())
    return added.content_hash


def read(run_folder: Path, content_hash: str) -> AddedPrompts:
    """The set of this hash. Raises RecordError if it is gone, damaged, another one, or of another format."""
    if len(content_hash) != 16 or set(content_hash) - set("0123456789abcdef"):
        raise RecordError(f"{content_hash!r} is not the hash of a set of prompts")
    file = layout.added_prompts_file(run_folder, content_hash)
    try:
        content = file.read_bytes()
    except OSError as error:
        remedy = "put the file back: the run draws from its prompts"
        raise RecordError(f"{file} cannot be read ({error.strerror or error}); {remedy}") from error
    if hash_of(content) != content_hash:
        raise RecordError(f"{file} is damaged: its content has the hash {hash_of(content)}")
    try:
        return _decode(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file} holds no prompts for a run ({one_line(error)})") from error


def read_all(run_folder: Path, content_hashes: Iterable[str]) -> list[Prompt]:
    """The prompts of all sets that a run has taken, in the order of the positions. Raises RecordError."""
    return [prompt for each in content_hashes for prompt in read(run_folder, each).prompts]


def contents(run_folder: Path, content_hashes: Iterable[str]) -> dict[str, bytes]:
    """Content hash → the file, for a checkpoint. Raises OSError."""
    return {each: layout.added_prompts_file(run_folder, each).read_bytes() for each in content_hashes}


def put_back(run_folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes those files of a checkpoint that are gone, as where the run folder comes from a mirror. Raises
    OSError."""
    for content_hash, content in files.items():
        file = layout.added_prompts_file(run_folder, content_hash)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            durable.write(file, content)


def _decode(body: Any) -> AddedPrompts:
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']!r}, this version reads {FORMAT}")
    prompts = tuple(Prompt(**each) for each in body["prompts"])
    if any(not isinstance(text, str) for prompt in prompts for text in astuple(prompt)):
        raise ValueError("a prompt is no text")
    if any(not prompt.prompt.strip() or prompt.split != "train" for prompt in prompts):
        raise ValueError("a prompt is empty, or not of the split 'train'")
    dropped = tuple(int(position) for position in body["dropped"])
    return AddedPrompts(body["prompts_hash"], body["after"], body["origin"], prompts, dropped)


def hash_of(content: bytes) -> str:
    """16 hexadecimal characters of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]
