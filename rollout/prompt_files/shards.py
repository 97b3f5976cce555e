"""The files of a folder of shards."""

from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.prompt_sources import SUFFIXES

WHOLE_SET = "prompts.jsonl"
"""A folder with this file is a set that `dynalign prompts make` wrote: the file alone is read."""


def kind(path: Path) -> str | None:
    """The ending by which a file is read, such as `.jsonl.gz`; None for a file of no known kind."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)


def shards(source: str, folder: Path) -> list[Path]:
    """The files of a folder and of those in it, by name; hidden ones and those of other kinds are left out.

    Raises UserError for a folder that cannot be read, holds none, or holds several kinds.
    """
    if (folder / WHOLE_SET).is_file():
        return [folder / WHOLE_SET]
    try:
        inside = sorted(folder.rglob("*"))
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error})"
        raise UserError([Mistake(source, None, rule, "correct the path or its permissions")]) from error
    files = [
        path
        for path in inside
        if kind(path)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    kinds = sorted({str(kind(path)).removesuffix(".gz") for path in files})
    if len(kinds) != 1:
        rule = (
            f"holds files of several kinds ({', '.join(kinds)})"
            if kinds
            else "is a folder without a file of prompts"
        )
        remedy = (
            "name one file, or keep one kind in the folder"
            if kinds
            else f"put files there: {', '.join(SUFFIXES)}"
        )
        raise UserError([Mistake(source, None, rule, remedy)])
    return files
