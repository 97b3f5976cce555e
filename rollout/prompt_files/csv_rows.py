"""Rows of comma- or tab-separated values, with a line of column names."""

import csv
from collections.abc import Iterable, Iterator

from dynalign.configs.errors import Mistake
from dynalign.rollout.prompt_files.columns import no_column
from dynalign.rollout.prompt_files.json_rows import Row


def csv_rows(
    source: str, lines: Iterable[bytes], column: str, mistakes: list[Mistake], separator: str | None = None
) -> Iterator[Row]:
    """The rows of a file of values, each named by its line. An empty value is None.

    separator: None to see it from the first line: a comma, or where there is none a semicolon or tab. Adds a
    mistake for each line that is not UTF-8 and each row of another length; of a file without the column, one.
    """
    texts = _texts(source, lines, mistakes)
    head = next(texts, "")
    reader = csv.reader(_again(head, texts), delimiter=separator or _separator(head), strict=True)
    try:
        names = next(reader, [])
        if column not in names:
            mistakes.append(no_column(source, column, names))
            return
        line = reader.line_num
        for values in reader:
            name = f"{source}:{line + 1}"
            line = reader.line_num
            if not any(values):
                continue
            if len(values) != len(names):
                rule = f"has {len(values)} values under {len(names)} column names"
                remedy = "put a value that holds the separator between quotation marks"
                mistakes.append(Mistake(name, None, rule, remedy))
                continue
            yield name, {key: value or None for key, value in zip(names, values, strict=True)}
    except csv.Error as error:
        rule = f"is not valid CSV ({error})"
        remedy = "close every quotation mark, and write one inside a value twice"
        mistakes.append(Mistake(f"{source}:{reader.line_num}", None, rule, remedy))


def _texts(source: str, lines: Iterable[bytes], mistakes: list[Mistake]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            rule = f"byte {error.start} of the line is not UTF-8"
            mistakes.append(Mistake(f"{source}:{number}", None, rule, "save the file as UTF-8"))
            text = line.decode("utf-8", "replace")
        yield text.removesuffix("\r") + "\n"


def _again(head: str, rest: Iterator[str]) -> Iterator[str]:
    yield head
    yield from rest


def _separator(head: str) -> str:
    return "," if "," in head else next((each for each in ";\t" if each in head), ",")
