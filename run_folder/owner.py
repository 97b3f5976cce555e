"""`owner.json`: which driver owns the run folder, in which lineage.

One driver at a time: a second one is refused while the first one's beat is young, unless the first is known to be dead. Taking
over begins a new lineage, and every writer asks `check` before it writes: one whose lineage is no longer on disk stops. All
changes happen under a lock on `owner.lock`, so of two drivers that start together one is refused.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from dynalign.configs.errors import Mistake, RecordError, StaleLineage, UserError
from dynalign.run_folder import durable, layout

FORMAT = 1
YOUNG_S = 30.0
"""A beat younger than this, in seconds, is a living driver's: several beats fit in, and so does a long pause of shared storage."""

SAME_START_S = 2.0
"""Two readings of one process's start differ by up to this, in seconds, when the machine's clock is set in between."""


LENGTH_BYTES = 512
"""Of the file, padded: a beat can then be written over the one before when the disk is full, or a run would die of a missing beat
that has lost nothing."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The content of `owner.json`. started_s: when the process began, so that another process with the same pid is not taken
    for it. beat_s: last sign of life. Both in Unix seconds."""

    lineage: int
    host: str
    pid: int
    started_s: float
    job: str
    beat_s: float
    state: Literal["running", "released"]


@dataclass(slots=True)
class Owner:
    """This process's ownership of `run_folder`. Every method raises StaleLineage once another driver has taken over."""

    run_folder: Path
    stamp: Stamp

    @property
    def lineage(self) -> int:
        return self.stamp.lineage

    def beat(self, now_s: float) -> None:
        """A sign of life, due every few seconds. now_s: Unix seconds."""
        self._change(replace(self.stamp, beat_s=now_s))

    def new_lineage(self, now_s: float) -> int:
        """Begins the next lineage, for a rollback by the same driver; returns it."""
        self._change(replace(self.stamp, lineage=self.lineage + 1, beat_s=now_s))
        return self.lineage

    def release(self, now_s: float) -> None:
        """Lets the next driver start at once."""
        self._change(replace(self.stamp, beat_s=now_s, state="released"))

    def _change(self, stamp: Stamp) -> None:
        with _locked(self.run_folder):
            check(self.run_folder, self.lineage)
            _write(self.run_folder, stamp)
        self.stamp = stamp


def acquire(run_folder: Path, now_s: float, job: str = "", newest_lineage: int = 0) -> Owner:
    """Makes this process the owner, in the lineage after the newest one known.

    now_s: Unix seconds. job: the Ray job, for messages. newest_lineage: the newest that the log or a checkpoint knows, in case
    `owner.json` was lost. Raises UserError while another driver lives, RecordError for a damaged `owner.json`.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    with _locked(run_folder):
        before = refuse_occupied(run_folder, now_s)
        lineage = max(newest_lineage, before.lineage if before else 0) + 1
        started_s = psutil.Process().create_time()
        stamp = Stamp(lineage, socket.gethostname(), os.getpid(), started_s, job, now_s, "running")
        _write(run_folder, stamp)
    return Owner(run_folder, stamp)


def refuse_occupied(run_folder: Path, now_s: float) -> Stamp | None:
    """Who owned the run folder last. Asked before anything else of it is read, which a living driver would change meanwhile.

    Raises UserError while another driver lives, RecordError for a damaged `owner.json`."""
    before = read(run_folder)
    if before is not None and _lives(before, now_s):
        raise UserError([_occupied(run_folder, before, now_s)])
    return before


def check(run_folder: Path, lineage: int) -> None:
    """Raises StaleLineage if `lineage` is not the one on disk; RecordError if `owner.json` is absent or damaged."""
    stamp = read(run_folder)
    if stamp is None:
        raise RecordError(f"{_path(run_folder)} is gone: nobody owns this run folder")
    if stamp.lineage != lineage:
        raise StaleLineage(lineage, stamp.lineage)


def read(run_folder: Path) -> Stamp | None:
    """Who owns the run folder; None if nobody ever did. Raises RecordError for a damaged file or an unknown format."""
    path = _path(run_folder)
    try:
        body = json.loads(path.read_text())
        if (found := body.pop("format")) != FORMAT:
            raise ValueError(f"format {found!r}, this version reads {FORMAT}")
        return Stamp(**body)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged or of another version: {error}") from error


def encode(stamp: Stamp) -> bytes:
    """The content of `owner.json`."""
    return json.dumps({"format": FORMAT, **asdict(stamp)}).ljust(LENGTH_BYTES).encode()


def _lives(stamp: Stamp, now_s: float) -> bool:
    if stamp.state == "released" or now_s - stamp.beat_s >= YOUNG_S:
        return False
    if stamp.host != socket.gethostname():
        return True
    try:
        process = psutil.Process(stamp.pid)
        same = abs(float(process.create_time()) - stamp.started_s) < SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _occupied(run_folder: Path, stamp: Stamp, now_s: float) -> Mistake:
    job = f", job {stamp.job}" if stamp.job else ""
    return Mistake(
        place=str(run_folder),
        value=None,
        rule=f"in use by process {stamp.pid} on {stamp.host}{job}, whose last beat is {max(0.0, now_s - stamp.beat_s):.0f} s old",
        remedy=f"stop that run first, choose another run.name, or wait until the beat is {YOUNG_S:.0f} s old if it is dead",
    )


def _write(run_folder: Path, stamp: Stamp) -> None:
    path = _path(run_folder)
    content = encode(stamp)
    try:
        durable.write(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        with path.open(
            "rb+"
        ) as file:  # a full disk takes no new file, but the bytes of this one are allocated
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _locked(run_folder: Path) -> Iterator[None]:
    """Holds the lock file; the kernel lets it go when the process dies. Held for milliseconds, so waiting needs no deadline."""
    with (run_folder / layout.OWNER_LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(run_folder: Path) -> Path:
    return run_folder / layout.OWNER
