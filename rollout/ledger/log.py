"""The ledger's log: one JSON line per event. The ledger is the newest checkpoint plus this log.

A commit is synced before it is acknowledged. The line of a scored group, or of a held-out answer, is not: if
the machine dies with it, it is generated again. Each line carries a format number and a checksum. A rollback
does not cut the file: a `LineageStart` line says from where a lineage goes on, and `committed` resolves
which commits lead to the final weights.

Opening replaces the file by a copy. A ledger that was taken for dead and wakes up still holds the file
before, so whatever it writes reaches nobody, and it can see that it was replaced.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from dynalign.configs.errors import RecordError, ReplacedLedger
from dynalign.rollout.ledger.evaluation_leases import EvaluationKey, EvaluationResult
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.values import (
    Break,
    Commit,
    LineageStart,
    PromptChange,
    Scored,
    ScoredGroup,
)
from dynalign.run_folder import durable as durable_file
from dynalign.run_folder.spool import SpoolEntry

FORMAT = 1


class LedgerLog:
    """The log file at `path`, open for appending.

    Opening drops lines that never reached the disk, see `read`. fsync: returns when the file behind a
    descriptor is on disk. Raises RecordError like `read`, OSError from the disk. Every write raises
    ReplacedLedger once another ledger has opened the log.
    """

    def __init__(self, path: Path, fsync: Callable[[int], object] = os.fsync) -> None:
        self._path = path
        self._fsync = fsync
        self._descriptor = -1
        self._size_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            durable_file.write(path, b"")
        with path.open("rb") as before:
            content = before.read()
            lines = _whole(path, content)
            self._replace(b"".join(map(encode, lines)))
            # What the ledger before has acknowledged since then.
            rest = _whole(path, before.read())
        self.lines: tuple[LogLine, ...] = (*lines, *rest)
        """What the log held when it was opened."""
        self.append(*rest, durable=True)

    def append(self, *lines: LogLine, durable: bool) -> None:
        """Writes the lines at once; returns when they are on disk if `durable`.

        Raises OSError from the disk; none of the lines is then in the file.
        """
        if not lines:
            return
        self.check()
        rest = b"".join(map(encode, lines))
        size_bytes = self._size_bytes
        try:
            while rest:
                written = os.write(self._descriptor, rest)
                self._size_bytes += written
                rest = rest[written:]
            if durable:
                self.sync()
        except OSError:
            os.ftruncate(self._descriptor, size_bytes)
            self._size_bytes = size_bytes
            raise
        self.check()

    def check(self) -> None:
        """Raises ReplacedLedger if another ledger has opened the log, or the file is gone."""
        mine = os.fstat(self._descriptor)
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            raise ReplacedLedger(str(self._path)) from None
        if not os.path.samestat(mine, current) or mine.st_size != self._size_bytes:
            raise ReplacedLedger(str(self._path))

    def sync(self) -> None:
        """Returns when all lines are on disk. Raises OSError from the disk."""
        self._fsync(self._descriptor)

    def rewrite(self, keep: Callable[[Sequence[LogLine]], Iterable[LogLine]]) -> None:
        """Replaces the file by one with the lines that `keep` selects.

        Blocks until they are on disk. Raises OSError from the disk, and then leaves the file as it was.
        """
        self.check()
        content = b"".join(map(encode, keep(read(self._path))))
        before = self._descriptor
        self._replace(content)
        os.close(before)

    def close(self) -> None:
        """Closes the file; nothing can be appended any more."""
        os.close(self._descriptor)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size_bytes

    def _replace(self, content: bytes) -> None:
        durable_file.write(self._path, content)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._size_bytes = len(content)


def encode(line: LogLine) -> bytes:
    """One line with its newline: canonical JSON, the checksum of everything before it as its last key."""
    if isinstance(line, Scored):
        group = line.group._asdict()
        body = {"group": group | asdict(group.pop("entry")), "born": line.leased_at_version}
    elif isinstance(line, EvaluationResult):
        answer = asdict(line)
        body = answer | answer.pop("key")
    else:
        body = line._asdict()
    text = _canonical({"format": FORMAT, "kind": _KINDS[type(line)], **body})
    return f'{text[:-1]},"checksum":"{_checksum(text)}"}}\n'.encode()


def read(path: Path) -> tuple[LogLine, ...]:
    """All complete lines.

    Lines that never reached the disk are dropped: a last one without its newline, and, after the last line
    that was synced, those with a hole, which is a run of zero bytes where a page was not written back. Raises
    RecordError, naming file and line, for any other damage and for an unknown format.
    """
    return _whole(path, path.read_bytes())


def _whole(path: Path, content: bytes) -> tuple[LogLine, ...]:
    *texts, _torn = content.split(b"\n")
    lines: list[LogLine] = []
    hole: tuple[int, Exception] | None = None
    for number, text in enumerate(texts, start=1):
        try:
            line = _decode(text)
        except (ValueError, KeyError, TypeError) as error:
            if b"\0" not in text:
                raise _damaged(path, number, error) from error
            hole = hole or (number, error)
            continue
        if hole is not None and not isinstance(line, Scored | EvaluationResult):
            raise _damaged(path, *hole) from hole[1]  # this line was synced, and so all before it
        lines.append(line)
    return tuple(lines)


def _damaged(path: Path, number: int, error: Exception) -> RecordError:
    return RecordError(f"{path}: line {number} is damaged or unknown: {error}")


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
            case Scored() | Break() | PromptChange() | EvaluationResult():
                pass
    return tuple(histories[max(histories)]) if histories else ()


_KINDS: dict[type[LogLine], str] = {
    LineageStart: "lineage",
    Scored: "scored",
    Commit: "commit",
    Break: "break",
    PromptChange: "prompts",
    EvaluationResult: "heldout",
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
        case "prompts":
            return PromptChange(**body | {"dropped": tuple(body["dropped"])})
        case "heldout":
            key = EvaluationKey(*(body.pop(name) for name in ("evaluation", "item", "attempt", "lineage")))
            return EvaluationResult(key, **body)
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
