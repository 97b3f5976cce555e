"""The spool: one file per scored group, complete or absent, in the folder `spool/` of a run.

A worker writes a group here before it reports it, so that the death of a process loses no scored group. A
reader accepts only files that match size and checksum in the ledger.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from dynalign.configs.errors import RecordError
from dynalign.run_folder import durable, layout


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One file of the spool.

    Example: `SpoolEntry("group-12-2-3.arrow", 48_264, "44bc2cf5ad770999")`.
    """

    name: str
    """Its name in the spool."""
    size_bytes: int
    """Its size."""
    checksum: str
    """xxh64 of its bytes, in hexadecimal."""


def write(folder: Path, name: str, payload: bytes | memoryview) -> SpoolEntry:
    """Returns once the bytes are on the disk under `name`. Raises RecordError for a name that no group has,
    or OSError."""
    entry = _measured(name, payload)
    durable.write(_path(folder, name), payload)
    return entry


def read(folder: Path, entry: SpoolEntry) -> bytes:
    """The bytes of `entry`. Raises RecordError if the file is absent or is not the one that `entry`
    describes."""
    path = _path(folder, entry.name)
    try:
        payload = path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: the scored group is not in the spool") from error
    found = _measured(entry.name, payload)
    if found != entry:
        expected = f"expected {entry.size_bytes} with {entry.checksum}"
        raise RecordError(f"{path}: {found.size_bytes} bytes with checksum {found.checksum}, {expected}")
    return payload


def remove(folder: Path, names: Iterable[str]) -> None:
    """Removes the files. A file that is absent is no error."""
    for name in names:
        _path(folder, name).unlink(missing_ok=True)


def names(folder: Path) -> tuple[str, ...]:
    """The names of all complete files, sorted."""
    return tuple(file.name for file in layout.group_files(folder))


def scan(folder: Path) -> dict[str, SpoolEntry]:
    """Name → size and checksum on disk, of every complete file.

    Reads all of them. A file that is removed meanwhile is left out.
    """
    found: dict[str, SpoolEntry] = {}
    for name in names(folder):
        with suppress(FileNotFoundError):
            found[name] = _measured(name, (folder / name).read_bytes())
    return found


def _measured(name: str, payload: bytes | memoryview) -> SpoolEntry:
    return SpoolEntry(name, memoryview(payload).nbytes, xxhash.xxh64_hexdigest(payload))


def _path(folder: Path, name: str) -> Path:
    if not layout.is_group_file(name):
        raise RecordError(f"{name!r} is not the name of a spool file")
    return folder / name
