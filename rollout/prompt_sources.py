"""The rows of a prompt source: the shipped prompts, a file, a folder of shards, a data set of the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.prompt_sources import BUILTIN, HUB, KINDS, source_rule
from dynalign.configs.user_files import UnreadableFile
from dynalign.configs.user_paths import user_path
from dynalign.rollout.prompt_files.csv_rows import csv_rows
from dynalign.rollout.prompt_files.hub_rows import hub_rows
from dynalign.rollout.prompt_files.json_rows import Row, document_rows, line_rows
from dynalign.rollout.prompt_files.lines import content, lines
from dynalign.rollout.prompt_files.messages import NoPrompt, is_messages, prompt_of
from dynalign.rollout.prompt_files.shards import kind, shards
from dynalign.rollout.prompt_files.tables import table_rows

FIELDS = ("id", "prompt", "domain", "split")


@dataclass(frozen=True)
class RowForm:
    """Where a row has its prompt: `RowForm("messages", earlier_turns=True)`."""

    column: str = "prompt"
    """The field or column of a text, or of a list of messages."""
    earlier_turns: bool = False
    """Whether the messages before the last user turn stay, as text above it."""
    further: tuple[str, ...] = ()
    """Columns of a table that are read besides FIELDS."""


PLAIN = RowForm()
"""A text in `prompt`."""


def read_rows(source: str, mistakes: list[Mistake], form: RowForm = PLAIN) -> Iterator[Row]:
    """The rows of a source, in its order, each with its prompt as `prompt`.

    Adds a mistake for each line that is none, while it reads.
    """
    fields = (*FIELDS, *form.further)
    try:
        if source.startswith(HUB):
            yield from _with_prompts(hub_rows(source, form.column, fields, mistakes), form, mistakes)
            return
        files_named = list(source_files(source))
    except UserError as error:
        mistakes += error.mistakes
        return
    for name, path in files_named:
        try:
            rows = _file_rows(name, path, form.column, fields, mistakes)
            yield from _with_prompts(rows, form, mistakes)
        except UnreadableFile as error:
            rule = f"cannot be read ({error})"
            mistakes.append(Mistake(name, None, rule, "correct the path or the file"))


def source_files(source: str) -> Iterator[tuple[str, Path]]:
    """The files of a source with their names for people; none for a data set of the hub. Raises UserError."""
    if source == BUILTIN:
        yield source, Path(str(files("dynalign.rollout").joinpath("data", "prompts.jsonl")))
        return
    if source.startswith(HUB):
        return
    path = user_path("prompts.source", source)
    if path.is_dir() and kind(path) is None:
        folder = source.rstrip("/")
        yield from ((f"{folder}/{shard.relative_to(path)}", shard) for shard in shards(source, path))
        return
    broken = source_rule(source)
    if broken is None and kind(path) is None:
        rule = (
            "cannot be read (there is no such folder)" if not path.exists() else "is no known kind of source"
        )
        broken = (rule, f"give {KINDS}")
    if broken is not None:
        raise UserError([Mistake("prompts", source, *broken)])
    yield source, path


def _file_rows(
    name: str, path: Path, column: str, fields: tuple[str, ...], mistakes: list[Mistake]
) -> Iterator[Row]:
    match str(kind(path)).removesuffix(".gz"):
        case ".jsonl":
            return line_rows(name, lines(content(path)), column, mistakes)
        case ".json":
            return document_rows(name, content(path), column, mistakes)
        case ".csv":
            return csv_rows(name, lines(content(path)), column, mistakes)
        case ".tsv":
            return csv_rows(name, lines(content(path)), column, mistakes, separator="\t")
        case _:
            return table_rows(name, path, column, fields, mistakes)


def _with_prompts(rows: Iterator[Row], form: RowForm, mistakes: list[Mistake]) -> Iterator[Row]:
    """The rows with their prompt in `prompt`, whatever column held it."""
    for name, row in rows:
        value = row.get(form.column)
        if is_messages(value):
            try:
                value = prompt_of(value, form.earlier_turns)
            except NoPrompt as error:
                remedy = "write messages as {role, content}, one of them by the user"
                mistakes.append(Mistake(name, None, f"{form.column!r} {error}", remedy))
                continue
        yield name, {**row, "prompt": value}
