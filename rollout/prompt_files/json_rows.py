"""Rows of JSON: an object a line, or one document that holds a list of them."""

import json
from collections.abc import Iterable, Iterator

from dynalign.configs.errors import Mistake
from dynalign.configs.user_files import TooLarge

Row = tuple[str, dict[str, object]]
"""The name of a row for people (`tasks.jsonl:7`), and its fields."""

MOST_DOCUMENT_BYTES = 1 << 28
"""A JSON document is in memory as a whole, at several times its size; lines are not."""


def line_rows(source: str, lines: Iterable[bytes], column: str, mistakes: list[Mistake]) -> Iterator[Row]:
    """The rows of JSON Lines. Adds a mistake for each line that is no object.

    A generator, so that the mistakes of a line and those of its row are listed in the order of the file.
    """
    for number, line in enumerate(lines, start=1):
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
                mistakes.append(Mistake(name, None, rule, f'write {{"{column}": "…"}}'))


def document_rows(source: str, parts: Iterable[bytes], column: str, mistakes: list[Mistake]) -> Iterator[Row]:
    """The rows of a `.json` file: JSON Lines by another name, a list of objects or of texts, an object that
    holds one such list, or an object of columns.

    Raises UnreadableFile for a document of more than MOST_DOCUMENT_BYTES.
    """
    content = _whole(parts)
    if _is_lines(content):
        yield from line_rows(source, content.split(b"\n"), column, mistakes)
        return
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        rule = f"byte {error.start} is not UTF-8"
        mistakes.append(Mistake(source, None, rule, "save the file as UTF-8"))
        return
    except (ValueError, RecursionError) as error:
        rule = f"is not valid JSON ({error})"
        mistakes.append(Mistake(source, None, rule, "write the file again, or one JSON object per line"))
        return
    rows = _rows_of(document, column)
    if rows is None:
        rule = "holds no list of rows"
        mistakes.append(
            Mistake(source, None, rule, f'write [{{"{column}": "…"}}, …], or one object per line')
        )
        return
    for number, row in enumerate(rows, start=1):
        name = f"{source}:{number}"
        if isinstance(row, str):
            yield name, {column: row}
        elif isinstance(row, dict):
            yield name, row
        else:
            rule = f"is a {type(row).__name__}, not a JSON object"
            mistakes.append(Mistake(name, None, rule, f'write {{"{column}": "…"}}'))


def _whole(parts: Iterable[bytes]) -> bytes:
    found: list[bytes] = []
    size_bytes = 0
    for part in parts:
        found.append(part)
        size_bytes += len(part)
        if size_bytes > MOST_DOCUMENT_BYTES:
            raise TooLarge(
                f"it has more than {MOST_DOCUMENT_BYTES:,} bytes: write one object a line, as .jsonl"
            )
    return b"".join(found)


def _is_lines(content: bytes) -> bool:
    """Whether the first line is an object by itself, and others follow."""
    first, newline, rest = content.lstrip().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    if not newline or not rest.strip() or not first.startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _rows_of(document: object, column: str) -> list[object] | None:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return None
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    if column in lists:
        columns = {name: value for name, value in lists.items() if len(value) == len(lists[column])}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return next(iter(lists.values())) if len(lists) == 1 else [document] if column in document else None
