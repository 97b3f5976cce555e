"""The spool: one file per scored group, whole or absent, in the run folder's `spool/`.

A worker writes a group here before it reports it, so no scored group dies with a process. A file is written aside, synced and
renamed; a reader believes nothing that does not match the size and checksum in the ledger.
"""

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from configs.errors import RecordError

ASIDE_AGE_S = 3600.0
"""A file written aside that is older than this, in seconds, is a dead writer's: writing one takes well under a minute."""

_NODE = os.uname().nodename
_NAME = re.compile(r"group-\d+-\d+-\d+\.arrow")


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One file: its name in the spool, size, and the xxh64 of its bytes in hexadecimal."""

    name: str
    size_bytes: int
    checksum: str


def group_file(group_id: int, lineage: int, attempt: int) -> str:
    """The file name of one attempt at one group."""
    return f"group-{group_id}-{lineage}-{attempt}.arrow"


def write(folder: Path, name: str, payload: bytes | memoryview) -> SpoolEntry:
    """Returns once the bytes are durable under `name`. Raises RecordError for a name that no group has, OSError from the disk."""
    path = _path(folder, name)
    aside = folder / f"{name}.{_NODE}.{os.getpid()}.aside"
    with ExitStack() as failed:
        failed.callback(aside.unlink, missing_ok=True)
        with _new(aside) as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        failed.pop_all()
    sync_folder(folder)
    return SpoolEntry(name, memoryview(payload).nbytes, xxhash.xxh64_hexdigest(payload))


def _new(path: Path) -> BinaryIO:
    """The file, open for writing. Its folder is made where there is none: asking each time would be two more system calls, and each lets
    another thread of a busy worker take the interpreter."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")


def read(folder: Path, entry: SpoolEntry) -> bytes:
    """The bytes of `entry`. Raises RecordError if the file is absent or is not the one that `entry` describes."""
    path = _path(folder, entry.name)
    try:
        payload = path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: the scored group is not in the spool") from error
    found = SpoolEntry(entry.name, len(payload), xxhash.xxh64_hexdigest(payload))
    if found != entry:
        raise RecordError(
            f"{path}: {found.size_bytes} bytes with checksum {found.checksum}, expected {entry.size_bytes} with {entry.checksum}"
        )
    return payload


def remove(folder: Path, names: Iterable[str]) -> None:
    """Removes the files; one that is gone already is no error."""
    for name in names:
        _path(folder, name).unlink(missing_ok=True)


def names(folder: Path) -> tuple[str, ...]:
    """The names of all whole files, sorted."""
    return tuple(sorted(path.name for path in folder.glob("*.arrow") if _NAME.fullmatch(path.name)))


def scan(folder: Path) -> dict[str, SpoolEntry]:
    """Every whole file as measured on disk, by name. Reads all of them."""
    measured: dict[str, SpoolEntry] = {}
    for name in names(folder):
        payload = (folder / name).read_bytes()
        measured[name] = SpoolEntry(name, len(payload), xxhash.xxh64_hexdigest(payload))
    return measured


def remove_leftovers(folder: Path, now_s: float) -> None:
    """Removes what dead writers left aside. now_s: Unix seconds. Young files stay: their writers may be alive."""
    for path in folder.glob("*.aside"):
        try:
            abandoned = now_s - path.stat().st_mtime > ASIDE_AGE_S
        except FileNotFoundError:  # its writer has just renamed it
            continue
        if abandoned:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename or a new file in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RecordError(f"{name!r} is not the name of a spool file")
    return folder / name
