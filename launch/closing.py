"""The end of a run: summary and report, from the files that it has left. Neither can fail the run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import one_line
from dynalign.launch.report.report import write_report
from dynalign.launch.summary import State, read_summary, summarize, summary_lines, write_summary
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import newest_whole

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError)
"""What a file that is cut, foreign or full of odd figures makes of a summary or report."""


@dataclass(frozen=True)
class Account:
    """What a driver knows of a run that has ended. Example: `Account("finished", None, {"issued": 32, …}, 8,
    False, 1.7e9)`."""

    state: State
    """How it ended."""

    cause: str | None
    """Why, for one that failed or that an alarm stopped."""

    ledger: Mapping[str, Any]
    """The ledger's last status, counts in groups."""

    steps: int
    """Steps that were wanted."""

    continued: bool
    """Whether this driver went on from a checkpoint, so that the time of the drivers before counts too."""

    started_s: float
    """When this driver began, Unix seconds."""


def close(folder: Path, account: Account) -> None:
    """Writes `summary.json` and the report, and prints the summary. Prints what could not be written."""
    try:
        before = read_summary(folder)
        earlier_s = before.wall_s if before is not None and account.continued else 0.0
        wall_s = time.time() - account.started_s + earlier_s
        checkpoint = newest_whole(folder / layout.CHECKPOINTS)
        summary = summarize(
            folder, account.state, account.steps, account.ledger, wall_s, checkpoint, account.cause
        )
    except _UNREADABLE as error:
        print(f"run {folder.name} {account.state}{f': {account.cause}' if account.cause else ''}")
        print(f"its files give no summary: {one_line(error)}")
        return
    try:
        write_summary(folder, summary)
        write_report([folder])
    except _UNREADABLE as error:
        print(f"summary and report cannot be written: {one_line(error)}")
    for line in summary_lines(summary):
        print(line)
