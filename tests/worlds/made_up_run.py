"""The folder of a run that was made up, file by file, so that a test can put a loss into it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import xxhash

Line = dict[str, Any]


def start(lineage: int, step: int, parent: int) -> Line:
    return {"kind": "lineage", "lineage": lineage, "step": step, "parent": parent}


def scored(group_id: int, lineage: int, version: int) -> Line:
    group = {
        "group_id": group_id,
        "lineage": lineage,
        "attempt": 1,
        "version_min": version,
        "version_max": version,
    }
    return {"kind": "scored", "group": group, "born": version}


def commit(step: int, lineage: int, *group_ids: int, withheld: tuple[tuple[int, str], ...] = ()) -> Line:
    return {"kind": "commit", "step": step, "lineage": lineage, "group_ids": group_ids, "withheld": withheld}


def poisoned(group_id: int, lineage: int, prompt_index: int) -> Line:
    ids = {"group_id": group_id, "lineage": lineage, "attempt": 1, "prompt_index": prompt_index}
    return {"kind": "break", "workers": ["a", "b", "c"], "poison": True, **ids}


def experience_group(group_id: int, lineage: int, version: int) -> list[dict[str, Any]]:
    """The rows of a group of two candidates with three tokens each."""
    spans = [{"version": version, "start": 0, "end": 3}]
    row = {"group_id": group_id, "lineage": lineage, "attempt": 1, "judge_version": version, "spans": spans}
    row |= {"token_ids_T": [1, 2, 3], "score": 2.0, "status": "parsed", "opinions": []}
    return [row | {"advantage": advantage} for advantage in (-1.0, 1.0)]


@dataclass
class MadeUp:
    """What stands in the files of a run of three steps of two groups, in which nothing is wrong.

    Lineage 1 committed steps 1 and 2, and lineage 2 went on from the checkpoint of step 1. Group 4 has no
    signal, and group 7 was open at the end.
    """

    lines: list[Line] = field(
        default_factory=lambda: [
            start(1, 0, 0),
            *(scored(0, 1, 0), scored(1, 1, 0), commit(1, 1, 0, 1)),
            *(scored(2, 1, 1), scored(3, 1, 1), commit(2, 1, 2, 3)),
            start(2, 1, 1),
            *(scored(3, 2, 1), scored(2, 2, 1), commit(2, 2, 3, 2, withheld=((4, "low_signal"),))),
            start(2, 2, 2),
            *(scored(5, 2, 1), scored(6, 2, 2), commit(3, 2, 5, 6)),
        ]
    )
    experience: dict[int, list[list[dict[str, Any]]]] = field(
        default_factory=lambda: {
            1: [experience_group(0, 1, 0), experience_group(1, 1, 0)],
            2: [experience_group(3, 2, 1), experience_group(2, 2, 1)],
            3: [experience_group(5, 2, 1), experience_group(6, 2, 2)],
        }
    )
    state: dict[str, Any] = field(
        default_factory=lambda: {
            **{"format": 1, "lineage": 2, "version": 3, "issued": 8, "trained": 6, "ended": True},
            **{"pending": [], "leased": [], "scored": [], "last_group_ids": [5, 6]},
            **{"withheld": {"low_signal": [4], "run_ended": [7]}, "requeued": 1, "late": 0, "rolled_back": 2},
        }
    )
    learner: dict[str, Any] = field(default_factory=lambda: {"format": 1, "step": 3, "group_ids": [6, 5]})
    manifest: dict[str, Any] = field(
        default_factory=lambda: {"format": 1, "run": "x", "lineage": 2, "step": 3, "group_ids": [5, 6]}
    )
    summary: dict[str, Any] = field(
        default_factory=lambda: {"state": "finished", "step": 3, "issued": 8, "trained": 6}
    )

    def withhold(self, reason: str, *group_ids: int) -> None:
        """Issue groups that are withheld at the end."""
        self.state["withheld"].setdefault(reason, []).extend(group_ids)
        self.state["issued"] += len(group_ids)
        self.summary["issued"] += len(group_ids)

    def write(self, folder: Path) -> Path:
        checkpoint = folder / "checkpoints" / f"step-{3:06d}"
        for name in ("deepspeed", "hf"):
            (checkpoint / name).mkdir(parents=True)
        (checkpoint / "hf" / "config.json").write_text("{}")
        (checkpoint / "ledger.msgpack").write_bytes(msgpack.packb(self.state))
        (checkpoint / "deepspeed" / "learner.json").write_text(json.dumps(self.learner))
        measured = {
            file.relative_to(checkpoint).as_posix(): {
                "size_bytes": file.stat().st_size,
                "checksum": xxhash.xxh64_hexdigest(file.read_bytes()),
            }
            for file in sorted(checkpoint.rglob("*"))
            if file.is_file()
        }
        (checkpoint / "manifest.json").write_text(json.dumps({"files": measured} | self.manifest))
        (folder / "summary.json").write_text(json.dumps(self.summary))
        (folder / "ledger.log").write_bytes(b"".join(map(log_line, self.lines)))
        (folder / "experience").mkdir()
        for step, groups in self.experience.items():
            write_arrow(folder / "experience" / f"step-{step:06d}.arrow", groups)
        return folder


def log_line(line: Line) -> bytes:
    text = json.dumps({"format": 1} | line, sort_keys=True, separators=(",", ":"))
    return f'{text[:-1]},"checksum":"{xxhash.xxh32_hexdigest(text.encode())}"}}\n'.encode()


SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("group_id", "lineage", "attempt", "judge_version")),
        ("spans", pa.list_(pa.struct([(name, pa.int32()) for name in ("version", "start", "end")]))),
        ("token_ids_T", pa.list_(pa.int32())),
        ("advantage", pa.float64()),
        ("score", pa.float64()),
        ("status", pa.string()),
        ("opinions", pa.list_(pa.struct([(name, pa.string()) for name in ("role", "status")]))),
    ]
)


def write_arrow(file: Path, groups: list[list[dict[str, Any]]]) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
        for rows in groups:
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
