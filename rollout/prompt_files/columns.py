"""The column that holds the prompts, where a table has none of its name."""

from collections.abc import Sequence

from dynalign.configs.errors import Mistake
from dynalign.configs.refusals import did_you_mean

COMMON = (
    "prompt",
    "messages",
    "instruction",
    "question",
    "problem",
    "text",
    "input",
    "query",
    "conversations",
)
"""Names under which prompts are published, the likeliest first."""


def no_column(source: str, column: str, columns: Sequence[str]) -> Mistake:
    """The mistake of a table without the column. columns: those that it has."""
    rule = f"has no column {column!r}"
    close = likely_column(column, columns)
    if close is None:
        return Mistake(
            source, list(columns), rule, "rename the column that holds the prompts, or set prompts.column"
        )
    return Mistake(source, list(columns), rule, f"did you mean {close!r}? set prompts.column={close}")


def likely_column(column: str, columns: Sequence[str]) -> str | None:
    """The column that is probably meant: a close name, or one under which prompts are published."""
    named = {name.lower(): name for name in reversed(columns)}
    return did_you_mean(column, columns) or next((named[each] for each in COMMON if each in named), None)
