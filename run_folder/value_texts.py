"""`value-texts/<hash>.json`: the texts that a run's judge reads, a file for each hash in its records.

The hash is of the texts, so a file of this name has this content, and is written once.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from dynalign.configs.errors import RecordError
from dynalign.run_folder import durable, layout

FORMAT = 1
logger = logging.getLogger(__name__)


def keep(run_folder: Path, content_hash: str, parts: Mapping[str, str]) -> None:
    """Writes the texts unless they are there. parts: file → its exact text, in the order of the hash.

    The file only informs: an error of the disk is logged, and the run goes on."""
    file = layout.value_texts_file(run_folder, content_hash)
    try:
        if not file.exists():
            file.parent.mkdir(mode=layout.PRIVATE, exist_ok=True)
            body = {"format": FORMAT, "parts": [list(part) for part in parts.items()]}
            durable.write(file, json.dumps(body, ensure_ascii=False, indent=1).encode())
    except OSError as error:
        logger.error("%s cannot be written: %s", file, error)


def read(run_folder: Path, content_hash: str) -> dict[str, str] | None:
    """The parts in their order; None where an earlier version has kept none.

    Raises RecordError for a file that cannot be read, or has an unknown format."""
    file = layout.value_texts_file(run_folder, content_hash)
    return read_file(file) if file.exists() else None


def read_file(file: Path) -> dict[str, str]:
    """The parts in one file. Raises RecordError like `read`."""
    try:
        body = json.loads(file.read_text("utf-8"))
        if body["format"] != FORMAT:
            raise RecordError(f"{file} has format {body['format']!r}, this version reads {FORMAT}")
        return {str(name): str(text) for name, text in body["parts"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file} cannot be read: {error!r}") from error
