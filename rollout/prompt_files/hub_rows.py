"""Rows of a data set of the hub, by the package `datasets`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dynalign.configs.errors import Mistake
from dynalign.configs.prompt_sources import hub_name
from dynalign.rollout.prompt_files.columns import no_column
from dynalign.rollout.prompt_files.json_rows import Row

_LOGGERS = ("datasets", "huggingface_hub", "fsspec", "httpx", "urllib3")


def hub_rows(source: str, column: str, fields: tuple[str, ...], mistakes: list[Mistake]) -> Iterator[Row]:
    """The rows of `hub:owner/name[/subset][:split]`; its split is `train` where none is named.

    Adds a mistake for a data set that cannot be loaded or has no such column.
    """
    named = hub_name(source)
    if named is None:
        rule = "is not of the form hub:owner/name:split"
        mistakes.append(Mistake("prompts", source, rule, "name one data set of the hub"))
        return
    try:
        import datasets
    except ImportError as error:
        mistakes.append(Mistake("prompts", source, f"needs the package datasets ({error})", "install it"))
        return
    try:
        with _without_warnings():
            table = datasets.load_dataset(named.name, named.subset, split=named.split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        remedy = "check name, split, network and access, or give a downloaded .parquet or .jsonl file"
        rule = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
        mistakes.append(Mistake("prompts", source, rule, remedy))
        return
    if column not in table.column_names:
        mistakes.append(no_column(source, column, table.column_names))
        return
    wanted = [field for field in dict.fromkeys((column, *fields)) if field in table.column_names]
    for number, row in enumerate(table.select_columns(wanted), start=1):
        yield f"{source}:{number}", row


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leaves the account of a failure to the one error that is raised: each retry is warned of otherwise."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
