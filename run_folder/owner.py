"""`owner.json`: which driver owns the run folder, in which lineage.

One driver at a time: a second one is refused while the heartbeat of the first is young, unless its process
is known to be dead. Taking over begins a new lineage. Every writer calls `check` before it writes, and
stops if the lineage on disk is no longer its own. All changes happen under a lock on `owner.lock`, so that
of two drivers that start together one is refused.
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

from dynalign.configs.errors import Mistake, RecordError, StaleLineage, UserError, one_line
from dynalign.run_folder import durable, layout

FORMAT = 1
YOUNG_S = 30.0
"""A driver whose heartbeat is younger than this, in seconds, counts as alive. Several heartbeats fit into
it, and so does a long pause of shared storage."""

SAME_START_S = 2.0
"""Two readings of the start of one process differ by at most this, in seconds, even if the clock is set in
between."""

LENGTH_BYTES = 512
"""Size of the file, with padding. On a full disk a heartbeat can then overwrite the one before; otherwise a
run that has lost nothing would end for lack of a heartbeat."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The content of `owner.json`.

    Example: `Stamp(2, "node-7", 4711, 1767225600.0, "raysubmit_x", 1767229200.0, "running")`.
    """

    lineage: int
    """Counts starts and rollbacks of the run, from 1."""
    host: str
    """Where the driver runs."""
    pid: int
    """Its process there."""
    started_s: float
    """Start of this process, in Unix seconds; another process with the same pid has another one."""
    job: str
    """Its Ray job; "" without one."""
    beat_s: float
    """Its last heartbeat, in Unix seconds."""
    state: Literal["running", "released"]
    """`released`: the next driver may start at once."""
    boot: str = ""
    """Id of the machine's boot, which no two machines share; "" where it is not known."""
    pid_namespace: str = ""
    """The namespace in which `pid` counts, since each container may have its own; "" where it is not
    known."""


@dataclass(slots=True)
class Owner:
    """Ownership of `run_folder` by this process. Every method raises StaleLineage once another driver has
    taken over."""

    run_folder: Path
    """The folder of the run."""
    stamp: Stamp
    """What this process has written last."""

    @property
    def lineage(self) -> int:
        return self.stamp.lineage

    def beat(self, now_s: float) -> None:
        """Writes a heartbeat, due every few seconds. now_s: Unix seconds."""
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

    now_s: Unix seconds. job: the Ray job, for messages. newest_lineage: the newest one in the ledger's log
    or in a checkpoint, in case `owner.json` was lost.

    Raises UserError while another driver is alive, RecordError for a damaged `owner.json`.
    """
    run_folder.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
    with _locked(run_folder):
        before = refuse_occupied(run_folder, now_s)
        lineage = max(newest_lineage, before.lineage if before else 0) + 1
        started_s = psutil.Process().create_time()
        stamp = Stamp(
            lineage,
            socket.gethostname(),
            os.getpid(),
            started_s,
            job,
            now_s,
            "running",
            _boot(),
            _pid_namespace(),
        )
        _write(run_folder, stamp)
    return Owner(run_folder, stamp)


def refuse_occupied(run_folder: Path, now_s: float) -> Stamp | None:
    """Who owned the run folder last. Call it before you read other files of the folder, which a live driver
    changes.

    Raises UserError while another driver is alive, RecordError for a damaged `owner.json`.
    """
    before = read(run_folder)
    if before is not None and lives(before, now_s):
        raise UserError([_occupied(run_folder, before, now_s)])
    return before


def check(run_folder: Path, lineage: int) -> None:
    """Raises StaleLineage if `lineage` is not the one on disk; RecordError if `owner.json` is absent or
    damaged."""
    stamp = read(run_folder)
    if stamp is None:
        raise RecordError(f"{_path(run_folder)} is gone: nobody owns this run folder")
    if stamp.lineage != lineage:
        raise StaleLineage(lineage, stamp.lineage)


def read(run_folder: Path) -> Stamp | None:
    """Who owns the run folder; None before the first driver. Raises RecordError for a damaged file or an
    unknown format."""
    path = _path(run_folder)
    try:
        body = json.loads(path.read_text())
        if (found := body.pop("format")) != FORMAT:
            raise ValueError(f"format {found!r}, this version reads {FORMAT}")
        return Stamp(**body)
    except (FileNotFoundError, NotADirectoryError):  # `runs` is a file: refused elsewhere, by name
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError) as error:
        remedy = "remove it if no driver of this run is alive"
        raise RecordError(f"{path} is damaged or of another version ({one_line(error)}); {remedy}") from error


def encode(stamp: Stamp) -> bytes:
    """The content of `owner.json`."""
    unknown = {name for name in ("boot", "pid_namespace") if not asdict(stamp)[name]}
    known = {name: value for name, value in asdict(stamp).items() if name not in unknown}
    return json.dumps({"format": FORMAT, **known}).ljust(LENGTH_BYTES).encode()


def is_driven(run_folder: Path, now_s: float) -> bool:
    """Whether a driver that counts as alive owns the run folder. now_s: Unix seconds. Raises RecordError as
    `read` does."""
    stamp = read(run_folder)
    return stamp is not None and lives(stamp, now_s)


def lives(stamp: Stamp, now_s: float) -> bool:
    """Whether the driver counts as alive. A beat that is as far in the future as an old one is in the past
    was written before a clock was set back, and says nothing."""
    if stamp.state == "released" or abs(now_s - stamp.beat_s) >= YOUNG_S:
        return False
    if not _sees_process_of(stamp):
        return True
    try:
        process = psutil.Process(stamp.pid)
        same = abs(float(process.create_time()) - stamp.started_s) < SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _sees_process_of(stamp: Stamp) -> bool:
    """Whether a process id of the stamp means the same here: on this machine, since this boot, and in this
    namespace. A host name alone is shared by containers with the host's network."""
    same_boot = stamp.boot in ("", _boot())
    same_namespace = stamp.pid_namespace in ("", _pid_namespace())
    return stamp.host == socket.gethostname() and same_boot and same_namespace


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _occupied(run_folder: Path, stamp: Stamp, now_s: float) -> Mistake:
    job = f", job {stamp.job}" if stamp.job else ""
    age_s = max(0.0, now_s - stamp.beat_s)
    return Mistake(
        place=str(run_folder),
        value=None,
        rule=f"in use by process {stamp.pid} on {stamp.host}{job}, whose last beat is {age_s:.0f} s old",
        remedy=f"stop that run first, set another name, or wait {YOUNG_S - age_s:.0f} s if it is dead",
    )


def _write(run_folder: Path, stamp: Stamp) -> None:
    path = _path(run_folder)
    content = encode(stamp)
    try:
        durable.write(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        # A full disk takes no new file, but the bytes of this one are allocated.
        with path.open("rb+") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def fenced(run_folder: Path, lineage: int) -> Iterator[None]:
    """A context in which no other driver can take the run over. Raises StaleLineage if one has, and
    RecordError like `check`. What is done in it must take milliseconds: the driver's heartbeat waits
    meanwhile."""
    with _locked(run_folder):
        check(run_folder, lineage)
        yield


@contextmanager
def _locked(run_folder: Path) -> Iterator[None]:
    """Holds the lock file. The kernel releases it when the process dies. It is held for milliseconds, so
    waiting needs no deadline."""
    with (run_folder / layout.OWNER_LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(run_folder: Path) -> Path:
    return run_folder / layout.OWNER
