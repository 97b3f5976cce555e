"""`withheld.jsonl`: the groups of a run that are never trained, and why. One JSON object per line.

The ledger appends the groups of each commit, and rewrites the file when it opens, so that it says what the
ledger's state says (`actors/ledger/withheld_file.py`). The file only informs: nothing is trained by it.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dynalign.configs.errors import RecordError
from dynalign.run_folder import durable, layout

FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WithheldGroup:
    """One line of `withheld.jsonl`.

    Example, a group whose candidates all got the same score:

        WithheldGroup(
            97,
            "low_signal",
            step=12,
            lineage=1,
            prompt_index=4,
            epoch=0,
            time_s=1764288010.7,
            prompt_id="governance-004",
            worker="rollout-3",
            attempt=1,
            scores_G=(5.0, 5.0, 5.0, 5.0),
            noise_std=0.02,
        )
    """

    group_id: int
    """The draw's number since the start of the run, from 0."""
    reason: str
    """`low_signal`, `unparsed`, `empty`, `judge_unreachable`, `unreadable_record`, `attempts_exhausted`,
    `poison`, `run_ended`, …"""
    step: int
    """The step whose commit has withheld it for good, or the last one before the run ended."""
    lineage: int
    """The history of the run that withheld it."""
    prompt_index: int
    """Position of its prompt in the training split."""
    epoch: int
    """Complete passes over the prompts before this draw."""
    time_s: float
    """When the line was made, in Unix seconds."""
    prompt_id: str | None = None
    """Id of the prompt in its source; None where no worker has reported the group, as all that follows."""
    worker: str | None = None
    """Who scored it."""
    attempt: int | None = None
    """Number of the lease under which it was made."""
    scores_G: tuple[float | None, ...] | None = None
    """The candidates' scores in points; None within it for a candidate without one."""
    noise_std: float | None = None
    """The worker's estimate of the judge's noise, in points; None before it has one."""

    def reported(
        self,
        worker: str,
        attempt: int,
        prompt_id: str,
        scores_G: tuple[float | None, ...],
        noise_std: float | None,
    ) -> "WithheldGroup":
        """The same with what a worker has reported."""
        return replace(
            self,
            worker=worker,
            attempt=attempt,
            prompt_id=prompt_id,
            scores_G=scores_G,
            noise_std=noise_std,
        )


def append(run_folder: Path, groups: Sequence[WithheldGroup]) -> None:
    """Adds a line per group. A full disk costs the lines, not the run."""
    file = run_folder / layout.WITHHELD
    try:
        with file.open("ab") as stream:
            stream.write(_lines(groups))
    except OSError as error:
        logger.error("%s cannot be written: %s", file, error)


def replace_all(run_folder: Path, groups: Sequence[WithheldGroup]) -> None:
    """Replaces the file by one with these lines; there is none without any. An error of the disk leaves it
    as it was."""
    file = run_folder / layout.WITHHELD
    if not groups and not file.exists():
        return
    try:
        durable.write(file, _lines(groups))
    except OSError as error:
        logger.error("%s cannot be written: %s", file, error)


def read(run_folder: Path) -> list[WithheldGroup]:
    """All complete lines, in the order of the file; [] without the file.

    Raises RecordError for a line that is no withheld group, or has an unknown format."""
    file = run_folder / layout.WITHHELD
    content = file.read_bytes() if file.exists() else b""
    return [_group(file, number, line) for number, line in enumerate(content.split(b"\n")[:-1], start=1)]


def read_what_can_be(run_folder: Path) -> list[WithheldGroup]:
    """The same for the ledger, which goes on whatever the file holds: [] and a logged error where `read`
    raises one."""
    try:
        return read(run_folder)
    except (RecordError, OSError) as error:
        logger.error("%s, and is written anew", error)
        return []


def _lines(groups: Iterable[WithheldGroup]) -> bytes:
    bodies = ({"format": FORMAT, **asdict(group)} for group in groups)
    return b"".join(json.dumps(body, ensure_ascii=False).encode() + b"\n" for body in bodies)


def _group(file: Path, number: int, line: bytes) -> WithheldGroup:
    try:
        body = json.loads(line)
        if (found := body.pop("format")) != FORMAT:
            raise ValueError(f"it has format {found!r}, and this version reads {FORMAT}")
        scores_G = body["scores_G"]
        return WithheldGroup(**body | {"scores_G": None if scores_G is None else tuple(scores_G)})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{file}, line {number} cannot be read: {error!r}") from error
