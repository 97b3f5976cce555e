"""The ledger's log: one JSON line per event. The ledger is the newest checkpoint plus this log.

A commit is synced before it is acknowledged. The line of a scored group is not: if the machine dies with it,
the group is generated again. Each line carries a format number and a checksum. A rollback does not cut the
file: a `LineageStart` line says from where a lineage goes on, and `committed` resolves which commits lead to
the final weights.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from dynalign.configs.errors import RecordError
from dynalign.rollout.ledger.values import Break, Commit, LineageStart, LogLine, Scored, ScoredGroup
from dynalign.run_folder.durable import sync
from dynalign.run_folder.spool import SpoolEntry

FORMAT = 1


class LedgerLog:
    """The log file at `path`, open for appending. `lines` is what it held when it was opened.

    Opening drops a torn last line, which was never acknowledged. fsync: returns when the file behind a
    descriptor is on disk. Raises RecordError like `read`, OSError from the disk.
    """

    def __init__(self, path: Path, fsync: Callable[[int], object] = os.fsync) -> None:
        self._fsync = fsync
        path.parent.mkdir(parents=True, exist_ok=True)
        created = not path.exists()
        self.lines = () if created else read(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if created:
            sync(path.parent)
        else:
            os.ftruncate(self._descriptor, path.read_bytes().rfind(b"\n") + 1)

    def append(self, *lines: LogLine, durable: bool) -> None:
        """Writes the lines at once; returns when they are on disk if `durable`.

        Raises OSError from the disk; none of the lines is then in the file.
        """
        if not lines:
            return
        size_bytes = os.fstat(self._descriptor).st_size
        rest = b"".join(map(encode, lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            if durable:
                self.sync()
        except OSError:
            os.ftruncate(self._descriptor, size_bytes)
            raise

    def sync(self) -> None:
        """Returns when all lines are on disk. Raises OSError from the disk."""
        self._fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def encode(line: LogLine) -> bytes:
    """One line with its newline: canonical JSON, the checksum of everything before it as its last key."""
    if isinstance(line, Scored):
        group = line.group._asdict()
        body = {"group": group | asdict(group.pop("entry")), "born": line.leased_at_version}
    else:
        body = line._asdict()
    text = _canonical({"format": FORMAT, "kind": _KINDS[type(line)], **body})
    return f'{text[:-1]},"checksum":"{_checksum(text)}"}}\n'.encode()


def read(path: Path) -> tuple[LogLine, ...]:
    """All whole lines. A last line without its newline is torn and dropped. Raises RecordError, naming file
    and line, for any other damage and for an unknown format."""
    *whole, _torn = path.read_bytes().split(b"\n")
    lines: list[LogLine] = []
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(_decode(text))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}: line {number} is damaged or unknown: {error}") from error
    return tuple(lines)


def committed(lines: Iterable[LogLine]) -> tuple[Commit, ...]:
    """The commits that lead to the final weights, in the order of their steps: those of the newest lineage,
    before them its parent's up to the step where it began, and so on. Lines that a replaced lineage wrote
    after that do not count."""
    histories: dict[int, list[Commit]] = {}
    for line in lines:
        match line:
            case LineageStart():
                parent = histories.get(line.parent, [])
                histories[line.lineage] = [commit for commit in parent if commit.step <= line.step]
            case Commit():
                histories.setdefault(line.lineage, []).append(line)
            case Scored() | Break():
                pass
    return tuple(histories[max(histories)]) if histories else ()


_KINDS: dict[type[LogLine], str] = {
    LineageStart: "lineage",
    Scored: "scored",
    Commit: "commit",
    Break: "break",
}


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _checksum(text: str) -> str:
    return xxhash.xxh32_hexdigest(text.encode())


def _decode(text: bytes) -> LogLine:
    body = json.loads(text)
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']!r}, this version reads {FORMAT}")
    if body.pop("checksum") != _checksum(_canonical(body)):
        raise ValueError("the checksum does not match")
    kind = body.pop("kind")
    del body["format"]
    match kind:
        case "lineage":
            return LineageStart(**body)
        case "scored":
            return Scored(_group(body["group"]), body["born"])
        case "commit":
            withheld = tuple((group_id, reason) for group_id, reason in body["withheld"])
            return Commit(body["step"], body["lineage"], tuple(body["group_ids"]), withheld)
        case "break":
            return Break(**body | {"workers": tuple(body["workers"])})
    raise ValueError(f"kind {kind!r}")


def _group(body: Mapping[str, Any]) -> ScoredGroup:
    """Earlier versions wrote the mean and standard deviation of the scores too; nothing reads them."""
    return ScoredGroup(
        body["group_id"],
        body["attempt"],
        body["lineage"],
        SpoolEntry(body["name"], body["size_bytes"], body["checksum"]),
        body["version_min"],
        body["version_max"],
        body["withheld_reason"],
    )
