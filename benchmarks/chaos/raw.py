"""Reads a run folder's files for the audit: JSON, msgpack and Arrow, without the code that wrote them.

A fault in the product's own readers must not hide a loss, so nothing of the product is imported here. File
names and fields are written out once more for the same reason. Each reader takes a list `wrong` and adds a
sentence to it where a file is missing or damaged.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import xxhash

Fields = dict[str, Any]
"""A JSON object or a msgpack map as it was read."""

_STEP_FOLDER = re.compile(r"step-(\d{6,})")
_STEP_FILE = re.compile(r"step-(\d{6,})\.arrow")
_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"\}$')
_NEEDED = ("ledger.msgpack", "deepspeed/learner.json", "hf/")


@dataclass(frozen=True)
class ExperienceGroup:
    """One group of an experience file: what was trained, and by which weight versions it was sampled.

    Example: ``ExperienceGroup(group_id=7, lineage=1, attempt=1, versions=(3, 4), candidates=8, flaws=())``
    """

    group_id: int
    """Draw number of the group."""
    lineage: int
    """Lineage in which the group was leased."""
    attempt: int
    """Attempt of that lineage which was scored, counted from 1."""
    versions: tuple[int, ...]
    """Distinct weight versions of its tokens, ascending; the judge's version where no token was sampled."""
    candidates: int
    """Completions in the group."""
    flaws: tuple[str, ...]
    """What is wrong with its rows, as clauses: a missing advantage, tokens without a version."""


def log_lines(file: Path, wrong: list[str]) -> list[Fields]:
    """The lines of `ledger.log` whose checksums match."""
    if not file.is_file():
        wrong.append(f"there is no {file.name}")
        return []
    *complete, torn = file.read_bytes().split(b"\n")
    if torn:
        wrong.append(f"{file.name} ends in the middle of a line")
    lines: list[Fields] = []
    for number, text in enumerate(complete, start=1):
        found = _CHECKSUM.search(text)
        # The checksum is of the object as it stood before the checksum became its last key.
        if found is None or xxhash.xxh32_hexdigest(text[: found.start()] + b"}") != found[1].decode():
            wrong.append(f"line {number} of {file.name} is damaged")
        else:
            lines.append(json.loads(text))
    return lines


def json_object(file: Path, wrong: list[str]) -> Fields:
    """The object in a JSON file; {} where there is none."""
    return _object(file, wrong, json.loads)


def msgpack_map(file: Path, wrong: list[str]) -> Fields:
    """The map in a msgpack file; {} where there is none."""
    return _object(file, wrong, lambda content: msgpack.unpackb(content, strict_map_key=False))


def _object(file: Path, wrong: list[str], read: Any) -> Fields:
    try:
        value = read(file.read_bytes())
    except FileNotFoundError:
        wrong.append(f"{file.parent.name} has no {file.name}")
        return {}
    except (OSError, ValueError, msgpack.UnpackException) as error:
        wrong.append(f"{file.parent.name}/{file.name} cannot be read: {error!r}")
        return {}
    if not isinstance(value, dict) or not value:
        wrong.append(f"{file.parent.name}/{file.name} is empty, or no object")
        return {}
    return value


def json_rows(file: Path, wrong: list[str]) -> list[Fields]:
    """The objects of a file with one per line; [] without the file."""
    try:
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    except ValueError as error:
        wrong.append(f"{file.name} cannot be read: {error!r}")
        return []


def newest_checkpoint(checkpoints: Path) -> tuple[int, Path] | None:
    """(step, folder) of the highest step that has a folder of a final name, with or without a manifest."""
    found = {
        int(name[1]): path for path in checkpoints.glob("*") if (name := _STEP_FOLDER.fullmatch(path.name))
    }
    return max(found.items(), default=None)


def manifest(folder: Path, wrong: list[str]) -> Fields:
    """The checkpoint's manifest, after each file that it names has been measured."""
    read = json_object(folder / "manifest.json", wrong)
    listed = read.get("files")
    if not isinstance(listed, dict) or not listed:
        wrong.append(f"the manifest of {folder.name} lists no file")
        return read
    for needed in _NEEDED:
        if not any(name.startswith(needed) for name in listed):
            wrong.append(f"the manifest of {folder.name} does not list {needed}")
    for name, entry in listed.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            wrong.append(f"the manifest of {folder.name} names {name}, which is outside of the checkpoint")
        elif not isinstance(entry, dict):
            wrong.append(f"the manifest of {folder.name} says nothing of {name}")
        elif not path.is_file() or path.stat().st_size != entry.get("size_bytes"):
            wrong.append(f"{folder.name}/{name} is missing or has another size")
        elif xxhash.xxh64_hexdigest(path.read_bytes()) != entry.get("checksum"):
            wrong.append(f"{folder.name}/{name} has another checksum than the manifest says")
    return read


def experience(folder: Path, wrong: list[str]) -> dict[int, list[ExperienceGroup]]:
    """Step to its groups, for each file `experience/step-*.arrow`."""
    files = {int(name[1]): file for file in folder.glob("*") if (name := _STEP_FILE.fullmatch(file.name))}
    groups: dict[int, list[ExperienceGroup]] = {}
    for step, file in sorted(files.items()):
        try:
            with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
                groups[step] = [_group(batch.to_pylist()) for batch in stream]
        except (pa.ArrowException, OSError, KeyError, IndexError, TypeError) as error:
            wrong.append(f"experience/{file.name} cannot be read: {error!r}")
    return groups


def _group(rows: list[Fields]) -> ExperienceGroup:
    first = rows[0]
    flaws: list[str] = []
    if any((row["group_id"], row["attempt"], row["lineage"]) != _key(first) for row in rows):
        flaws.append("holds rows of several groups")
    if any(row["advantage"] is None for row in rows):
        flaws.append("has a candidate without an advantage")
    if any(_covered(row["spans"]) != list(range(len(row["token_ids_T"]))) for row in rows):
        flaws.append("has tokens without a version")
    if any(_unreached(row) and (row["score"] is not None or row["advantage"]) for row in rows):
        flaws.append("learns from a candidate whose judge could not be reached")
    versions = {span["version"] for row in rows for span in row["spans"]} or {first["judge_version"]}
    return ExperienceGroup(
        group_id=first["group_id"],
        lineage=first["lineage"],
        attempt=first["attempt"],
        versions=tuple(sorted(versions)),
        candidates=len(rows),
        flaws=tuple(flaws),
    )


def _unreached(row: Fields) -> bool:
    """Whether the candidate's judge, or one of those that may lower its score, gave no answer."""
    vetoes = [each["status"] for each in row.get("opinions", ()) if each["role"] == "veto"]
    return "unreachable" in (row.get("status"), *vetoes)


def _key(row: Fields) -> tuple[int, int, int]:
    return row["group_id"], row["attempt"], row["lineage"]


def _covered(spans: list[Fields]) -> list[int]:
    return [token for span in spans for token in range(span["start"], span["end"])]
