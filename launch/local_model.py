"""A model that an offline command asks on our own engines: its folder and figures, refused before anything is
started."""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.pool import PoolSettings
from dynalign.launch.models.folder import download, folder_mistakes, model_folder
from dynalign.launch.models.shape import ModelShape, read_shape
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.memory import RAY_BYTES, gigabytes, pool_memory
from dynalign.launch.plan.nodes import Node
from dynalign.launch.plan.plan import kv_tokens_of
from dynalign.run_folder.content import model_hash, model_hashes

T = TypeVar("T")
NO_POSITIONS = 8192
"""Tokens of a context, of a model that names no longest one."""


def in_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster, whose nodes run the engines."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def gpu_node() -> Node:
    """This machine, with its GPUs."""
    return this_machine(with_gpus=True)


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine, and the engines that it is asked on.

    Example: `LocalModel("--local", settings, Path("models/judge"), 4096, "9f2c…",
    "2026-01-31")`.
    """

    place: str
    """What names it, for mistakes."""
    settings: PoolSettings
    """How many engines there are, and how each is built."""
    folder: Path
    """Absolute path of its Hugging Face folder, the same on every node."""
    context_tokens: int
    """Longest question with its answer."""
    content: str
    """Hash of its files: another model under the same path has other answers in the journal."""
    date: str
    """The day (ISO) that chat templates print. It is not in the journal: a command that is run again on
    another day reads the answers that it has."""
    seed: int = 0
    """Of the engines; a question's own comes before it."""

    @property
    def name(self) -> str:
        """The model's name in questions and answers."""
        return self.folder.name

    @property
    def address(self) -> str:
        """What stands in the journal for the server's address."""
        return f"engine:{self.settings.engine}/{self.settings.dtype}/{self.content}"


def local_model(
    place: str, settings: PoolSettings, date: str | None = None, here: Callable[[], Node] = gpu_node
) -> LocalModel:
    """The model that `settings.model` names, downloaded where it is a hub's.

    place: what names it. date: None for today. here: this machine. Raises UserError for a model that cannot
    be used, and for engines that this machine cannot hold, unless RAY_ADDRESS names a cluster.
    """
    named = settings.model
    if named is None:
        remedy = "name a folder, a fetched model, or a hub id (owner/name)"
        raise UserError([Mistake(place, None, "names no model", remedy)])
    found = _at(place, lambda: model_folder(named))
    folder = _at(place, lambda: download(named)) if isinstance(found, str) else found
    if mistakes := folder_mistakes(folder):
        raise UserError(mistakes)
    shape = read_shape(folder)
    node = None if in_cluster() else here()
    on_gpu = node is not None and bool(node.gpus)
    longest = _context_tokens(place, settings, shape, on_gpu)
    if node is not None and (mistakes := _room_mistakes(place, settings, shape, node)):
        raise UserError(mistakes)
    try:
        content = model_hash(model_hashes(folder))
    except OSError as error:
        rule = f"cannot be read ({error.strerror}: {error.filename})"
        raise UserError([Mistake(place, named, rule, "make its files readable")]) from error
    day = date or datetime.date.today().isoformat()
    return LocalModel(place, settings, folder, longest, content, day)


def _context_tokens(place: str, settings: PoolSettings, shape: ModelShape, on_gpu: bool) -> int:
    """The longest context: as set, else what model and cache hold. Raises UserError for one that they do not
    hold."""
    cache = kv_tokens_of(settings, on_gpu, shape)
    most = min(shape.positions or NO_POSITIONS, cache if settings.engine == "vllm" else NO_POSITIONS)
    wanted = settings.context_tokens
    if wanted is None or wanted <= most:
        return wanted or most
    rule = f"context_tokens={wanted:,}, and its cache and its model hold {most:,} tokens of one context"
    remedy = f"set it to {most} or less, or kv_cache_gib={settings.kv_cache_gib:g} higher"
    raise UserError([Mistake(place, settings.model, rule, remedy)])


def _room_mistakes(place: str, settings: PoolSettings, shape: ModelShape, node: Node) -> list[Mistake]:
    """What this machine lacks."""
    on_gpu = bool(node.gpus)
    parts = pool_memory(settings, on_gpu, shape)
    host = RAY_BYTES + settings.engines * sum(part.size_bytes for part in parts if part.where == "host")
    mistakes = []
    if host > node.memory_bytes:
        rule = (
            f"{settings.engines} engines take {gigabytes(host)}, and {gigabytes(node.memory_bytes)} are free"
        )
        mistakes.append(Mistake(place, settings.model, rule, "ask for fewer, or set kv_cache_gib lower"))
    wanted = settings.engines * settings.tensor_parallel
    if on_gpu and settings.engine == "vllm" and wanted > len(node.gpus):
        rule = f"{settings.engines} engines take {wanted} GPUs, and this machine has {len(node.gpus)}"
        mistakes.append(Mistake(place, settings.model, rule, "ask for fewer engines"))
    device = sum(part.size_bytes for part in parts if part.where == "gpu")
    known = [size for size in node.gpus if size]
    if known and device > min(known):
        rule = f"an engine takes {gigabytes(device)} of a GPU, and one has {gigabytes(min(known))}"
        mistakes.append(
            Mistake(place, settings.model, rule, "set kv_cache_gib lower, or tensor_parallel higher")
        )
    return mistakes


def _at(place: str, call: Callable[[], T]) -> T:
    """The result of a call whose mistakes are about what `place` names."""
    try:
        return call()
    except UserError as error:
        mistakes = [
            replace(each, place=place if each.place == "model" else each.place) for each in error.mistakes
        ]
        raise UserError(mistakes) from error
