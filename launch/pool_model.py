"""The model of `judge.pool`: its folder, its figures, and what is refused of it before anything starts."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dynalign.configs.errors import UserError
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.folder import download, folder_mistakes, model_folder
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import ModelShape, read_shape
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.run_folder.content import model_hashes

T = TypeVar("T")
PLACE = "judge.pool.model"


def pool_folder(settings: RunSettings, policy: Path, fetch: bool) -> Path | None:
    """The folder of the pool's model, the policy's where none is named; None without a pool, or for a hub's
    model that is not on this machine.

    fetch: download such a model, and read its tokenizer. Raises UserError for a model that cannot be used.
    """
    pool = settings.judge.pool
    if pool is None or pool.model is None:
        return None if pool is None else policy
    named = pool.model
    found = _at_its_place(lambda: model_folder(named))
    if isinstance(found, str) and fetch:
        found = _at_its_place(lambda: download(named))
    if isinstance(found, str):
        return None
    if mistakes := folder_mistakes(found):
        raise UserError(mistakes)
    if fetch:
        pool_contexts(settings, found)
    return found


def pool_contexts(settings: RunSettings, folder: Path) -> Contexts | None:
    """The contexts of the model that the pool names; None where it is the policy's.

    Raises UserError like `load_contexts`."""
    pool = settings.judge.pool
    if pool is None or pool.model is None:
        return None
    return load_contexts(folder, "", settings.date or datetime.date.today().isoformat())


def pool_shape(settings: RunSettings) -> ModelShape | None:
    """The figures of the model that the pool names; None without one, or where they are not known yet."""
    pool = settings.judge.pool
    if pool is None or pool.model is None:
        return None
    try:
        found = model_folder(pool.model)
        return known_shape(found) if isinstance(found, str) else read_shape(found)
    except UserError:  # `pool_folder` says it
        return None


def pool_hashes(settings: RunSettings) -> dict[str, str]:
    """The hashes of the model that the pool names, as `model_hashes`; {} without one on this machine.

    Raises OSError if a file cannot be read.
    """
    pool = settings.judge.pool
    if pool is None or pool.model is None:
        return {}
    try:
        found = model_folder(pool.model)
    except UserError:  # `pool_folder` says it
        return {}
    return (
        {}
        if isinstance(found, str)
        else {f"judge.pool.{of}": each for of, each in model_hashes(found).items()}
    )


def _at_its_place(call: Callable[[], T]) -> T:
    """The result of a call whose mistakes are about the pool's model, not the policy's."""
    try:
        return call()
    except UserError as error:
        mistakes = [
            replace(mistake, place=PLACE) if mistake.place == "model" else mistake
            for mistake in error.mistakes
        ]
        raise UserError(mistakes) from error
