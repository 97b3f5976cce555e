"""What a refresh has decided, kept beside its set: a command that was interrupted goes on with the same
cells, whatever the run has learned meanwhile."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dynalign.configs.errors import RecordError, one_line
from dynalign.dataset.items import Cell
from dynalign.run_folder import durable, layout

FORMAT = 1


@dataclass(frozen=True)
class RefreshDecision:
    """One refresh of one run.

    Example: `RefreshDecision(1, 100, (Cell(…), …), dropped=(3, 17), after="", handed="0123456789abcdef")`.
    """

    number: int
    """Of the refresh, from 1."""
    count: int
    """New prompts."""
    cells: tuple[Cell, ...]
    """Of their goals."""
    dropped: tuple[int, ...]
    """Positions of the prompts that they take the place of."""
    after: str
    """Content hash of the set that the run had taken last; empty for none."""
    handed: str = ""
    """Content hash of the set that was handed to the run; empty as long as none was."""

    def given(self, content_hash: str) -> "RefreshDecision":
        """The same, handed to the run."""
        return replace(self, handed=content_hash)


def write_decision(run_folder: Path, decision: RefreshDecision) -> None:
    """Replaces the file of the decision. Raises OSError."""
    file = layout.refresh_decision(run_folder, decision.number)
    file.parent.mkdir(exist_ok=True)
    durable.write(file, json.dumps({"format": FORMAT, **asdict(decision)}, ensure_ascii=False) + "\n")


def newest_decision(run_folder: Path) -> RefreshDecision | None:
    """The decision of the newest refresh; None where none was begun. Raises RecordError for a damaged
    file."""
    begun = layout.refresh_numbers(run_folder)
    if not begun:
        return None
    file = layout.refresh_decision(run_folder, begun[-1])
    try:
        body = json.loads(file.read_bytes())
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}, this version reads {FORMAT}")
        cells = tuple(Cell(**cell) for cell in body["cells"])
        dropped = tuple(body["dropped"])
        numbers = (int(body["number"]), int(body["count"]))
        return RefreshDecision(*numbers, cells, dropped, body["after"], body["handed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "remove it, and its folder, to begin another refresh"
        raise RecordError(f"{file} holds no decision ({one_line(error)}); {remedy}") from error
