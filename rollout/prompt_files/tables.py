"""Rows of Parquet and Arrow files, a batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake
from dynalign.configs.user_files import UnreadableFile, check_is_file
from dynalign.rollout.prompt_files.columns import no_column
from dynalign.rollout.prompt_files.json_rows import Row

_BATCH_ROWS = 1_024


def table_rows(
    source: str, path: Path, column: str, fields: tuple[str, ...], mistakes: list[Mistake]
) -> Iterator[Row]:
    """The rows of a table. fields: further columns that are read where there are any; others stay on disk.

    Raises UnreadableFile. Adds a mistake for a file that is no table, or has no such column.
    """
    import pyarrow as pa

    check_is_file(path)
    number = 0
    try:
        with pa.memory_map(str(path)) as file:
            for batch in _batches(file, path, source, (column, *fields), mistakes):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{source}:{number}", row
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error
    except (ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        mistakes.append(Mistake(source, None, f"is not a readable table ({reason})", "write the file again"))


def _batches(
    file: Any, path: Path, source: str, fields: tuple[str, ...], mistakes: list[Mistake]
) -> Iterator[Any]:
    """Batches of the wanted columns. file: a memory map of pyarrow."""
    import pyarrow.ipc
    import pyarrow.parquet

    if path.suffix.lower() == ".parquet":
        table = pyarrow.parquet.ParquetFile(file)
        found = _wanted(source, table.schema_arrow.names, fields, mistakes)
        if found:
            yield from table.iter_batches(batch_size=_BATCH_ROWS, columns=found)
        return
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
    found = _wanted(source, reader.schema.names, fields, mistakes)
    if not found:
        return
    batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield batch.select(found).slice(start, _BATCH_ROWS)


def _wanted(source: str, columns: list[str], fields: tuple[str, ...], mistakes: list[Mistake]) -> list[str]:
    """The fields that a table has, the column of the prompts first; none without that one."""
    if fields[0] not in columns:
        mistakes.append(no_column(source, fields[0], columns))
        return []
    return [name for name in dict.fromkeys(fields) if name in columns]
