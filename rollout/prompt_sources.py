"""The rows of a prompt source: of a file of one of the known kinds, or of a data set of the hub."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.user_files import UnreadableFile, check_is_file, read_file
from dynalign.configs.user_paths import user_path

FIELDS = ("id", "prompt", "domain", "split")
SUFFIXES = (".jsonl", ".parquet", ".arrow")

Row: TypeAlias = tuple[str, dict[str, object]]
"""The name of a row for people (`tasks.jsonl:7`), and its fields."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_HUB_LOGGERS = ("datasets", "huggingface_hub", "fsspec", "httpx", "urllib3")


def read_rows(source: str, mistakes: list[Mistake]) -> Iterable[Row]:
    """The rows of a source, in its order. Adds a mistake for each line that is none, while it reads."""
    if source.startswith("hub:"):
        return _hub_rows(source, mistakes)
    if source != "builtin" and not source.endswith(SUFFIXES):
        remedy = "give 'builtin', a .jsonl, .parquet or .arrow file, or 'hub:owner/name'"
        mistakes.append(Mistake("prompts", source, "is no known kind of source", remedy))
        return []
    try:
        path = _path(source)
        if path.suffix == ".jsonl":
            return _jsonl_rows(source, read_file(path), mistakes)
        return _table_rows(source, path, mistakes)
    except UserError as error:
        mistakes += error.mistakes
    except UnreadableFile as error:
        rule = f"cannot be read ({error})"
        mistakes.append(Mistake(source, None, rule, "correct the path or the file"))
    return []


def _path(source: str) -> Path:
    if source == "builtin":
        return Path(str(files("dynalign.rollout").joinpath("data", "prompts.jsonl")))
    return user_path("prompts.source", source)


def _jsonl_rows(source: str, content: bytes, mistakes: list[Mistake]) -> Iterator[Row]:
    # A generator, so that the mistakes of a line and those of its row are listed in the order of the file.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        name = f"{source}:{number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            rule = f"byte {error.start} of the line is not UTF-8"
            mistakes.append(Mistake(name, None, rule, "save the file as UTF-8"))
        except (ValueError, RecursionError) as error:
            reason = str(error).replace("line 1 ", "")  # the decoder counts lines within this line
            rule = f"is not valid JSON ({reason})"
            mistakes.append(Mistake(name, None, rule, "write one JSON object per line"))
        else:
            if isinstance(row, dict):
                yield name, row
            else:
                rule = f"is a {type(row).__name__}, not a JSON object"
                mistakes.append(Mistake(name, None, rule, 'write {"prompt": "…"}'))


def _table_rows(source: str, path: Path, mistakes: list[Mistake]) -> list[Row]:
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    check_is_file(path)
    try:
        with pa.memory_map(str(path)) as file:
            if path.suffix == ".parquet":
                table = pyarrow.parquet.read_table(file)
            elif file.read(6) == b"ARROW1":
                table = pyarrow.ipc.open_file(file).read_all()
            else:
                file.seek(0)
                table = pyarrow.ipc.open_stream(file).read_all()
            if "prompt" not in table.column_names:
                mistakes.append(_no_prompt_column(source, table.column_names))
                return []
            rows = table.select([name for name in FIELDS if name in table.column_names]).to_pylist()
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error
    except (ValueError, pa.ArrowException) as error:
        mistakes.append(Mistake(source, None, f"is not a readable table ({error})", "write the file again"))
        return []
    return [(f"{source}:{number}", row) for number, row in enumerate(rows, start=1)]


def _hub_rows(source: str, mistakes: list[Mistake]) -> list[Row]:
    name = source.removeprefix("hub:")
    if not _HUB_ID.fullmatch(name):
        rule = "is not of the form hub:owner/name"
        mistakes.append(Mistake("prompts", source, rule, "name one data set of the hub"))
        return []
    try:
        import datasets
    except ImportError as error:
        mistakes.append(Mistake("prompts", source, f"needs the package datasets ({error})", "install it"))
        return []
    try:
        with _without_warnings():
            table = datasets.load_dataset(name, split="train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        remedy = "check name, network and access, or give a downloaded .parquet or .jsonl file"
        rule = f"cannot be loaded ({type(error).__name__}: {error})"
        mistakes.append(Mistake("prompts", source, rule, remedy))
        return []
    if "prompt" not in table.column_names:
        mistakes.append(_no_prompt_column(source, table.column_names))
        return []
    rows = table.select_columns([field for field in FIELDS if field in table.column_names])
    return [(f"{source}:{number}", row) for number, row in enumerate(rows, start=1)]


def _no_prompt_column(source: str, columns: list[str]) -> Mistake:
    return Mistake(source, columns, "has no column 'prompt'", "rename the column that holds the prompts")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leaves the account of a failure to the one error that is raised: each retry is warned of otherwise."""
    loggers = [logging.getLogger(name) for name in _HUB_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
