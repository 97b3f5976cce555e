"""What became of each stage: one JSON line per end of a stage, on the disk before the next one starts."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dynalign.benchmarks.workload import Device
from dynalign.configs.errors import RecordError

Status = Literal["passed", "failed", "deadline", "skipped"]
"""`passed`: it ran to its end, and all that it checks holds. `failed`: it ended with an error. `deadline`: it
was ended with all its processes. `skipped`: it was not started, or found that this machine cannot do it."""
Measured = float | int | str


@dataclass(frozen=True)
class Origin:
    """What a result belongs to. Only a stage that passed with the same sources on the same card is done.

    Example: `Origin("gpu", "NVIDIA H100 80GB HBM3", "0123456789ab", "5c1f0a9b7e22")`.
    """

    device: Device
    """Where engine and learner run."""
    card: str
    """Name of the GPU, or of the processor in a dry run."""
    commit: str
    """The commit, with a "+" where files differ from it; empty outside of a checkout."""
    sources: str
    """The first 12 digits of a hash of all sources, which copies without a repository have too."""


@dataclass(frozen=True)
class StageOutcome:
    """One end of one stage: a line of `results.jsonl`.

    Example:

        StageOutcome(
            stage="replaced-worker",
            status="failed",
            seconds=88.4,
            figures={"lost_s": 31.2},
            cause="the run trained 3 steps of 6",
            origin=Origin("gpu", "NVIDIA H100 80GB HBM3", "0123456789ab", "5c1f0a9b7e22"),
            ended_s=1767225600.0,
        )
    """

    stage: str
    """Its name in the catalog (`stages.py`)."""
    status: Status
    """How it ended."""
    seconds: float
    """How long it ran."""
    figures: dict[str, Measured]
    """What it had measured by then, however it ended. Units are in the names."""
    cause: str
    """Why it did not pass; empty if it did."""
    origin: Origin
    """The machine and the sources."""
    ended_s: float
    """When it ended, in Unix seconds."""


def append(file: Path, outcome: StageOutcome) -> None:
    """Appends a line, which is on the disk when this returns. A line that a killed writer has left incomplete
    is cut off first."""
    line = json.dumps(asdict(outcome), ensure_ascii=False)
    with file.open("a+b") as out:
        out.seek(0)
        out.truncate(out.read().rfind(b"\n") + 1)
        out.write(line.encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> list[StageOutcome]:
    """All complete lines in order; [] without the file. An incomplete last line is left out.

    Raises RecordError for another line that is no outcome."""
    found = []
    for number, line in enumerate(complete_lines(file), 1):
        try:
            values = json.loads(line)
            found.append(StageOutcome(**values | {"origin": Origin(**values["origin"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(f"{file}:{number} is no result of a stage: {error}") from error
    return found


def complete_lines(file: Path) -> list[str]:
    """The lines that end in a newline; [] without the file."""
    return file.read_text("utf-8", "replace").split("\n")[:-1] if file.exists() else []


def read_figures(file: Path) -> dict[str, Measured]:
    """What a stage has written of its figures: a JSON object per line, the last value of a name."""
    figures: dict[str, Measured] = {}
    for line in complete_lines(file):
        figures |= json.loads(line)
    return figures


def newest(outcomes: Iterable[StageOutcome], origin: Origin) -> dict[str, StageOutcome]:
    """Stage → how it ended last on this card, with these sources."""

    def belongs(other: Origin) -> bool:
        return (other.device, other.card, other.sources) == (origin.device, origin.card, origin.sources)

    return {outcome.stage: outcome for outcome in outcomes if belongs(outcome.origin)}
