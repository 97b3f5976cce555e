"""The spool: one file per scored group, whole or absent, in the run folder's `spool/`.

A worker writes a group here before it reports it, so no scored group dies with a process. A reader believes nothing that does not match the size and checksum in the ledger.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from dynalign.configs.errors import RecordError
from dynalign.run_folder import durable

_NAME = re.compile(r"group-\d+-\d+-\d+\.arrow")


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One file: its name in the spool, size, and the xxh64 of its bytes in hexadecimal."""

    name: str
    size_bytes: int
    checksum: str


def write(folder: Path, name: str, payload: bytes | memoryview) -> SpoolEntry:
    """Returns once the bytes are durable under `name`. Raises RecordError for a name that no group has, OSError from the disk."""
    entry = SpoolEntry(name, memoryview(payload).nbytes, xxhash.xxh64_hexdigest(payload))
    durable.write(_path(folder, name), payload)
    return entry


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


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RecordError(f"{name!r} is not the name of a spool file")
    return folder / name
