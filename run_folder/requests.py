"""Requests to the driver of a run, and the status that it writes: plain files, for any shell that reaches the run folder.

    driver   writes status.json at every look, and takes requests
    shells   read status.json; leave stop.request (pause, resume, scale), and wait until it is gone

Files need no token of the cluster, answer at once, and work when the cluster is not reached.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dynalign.run_folder import durable, layout
from dynalign.run_folder.run_status import RunStatus

RequestKind = Literal["pause", "resume", "stop", "scale"]


@dataclass(frozen=True, slots=True)
class Request:
    """kind: what is asked for. workers: the wanted number of rollout workers for `scale`, 0 for the others."""

    kind: RequestKind
    workers: int = 0


def leave(run_folder: Path, request: Request) -> Path:
    """Leaves a request; the file that is returned is gone once the driver has taken it."""
    file = layout.request_file(run_folder, request.kind)
    durable.write(file, str(request.workers))
    return file


def take(run_folder: Path) -> list[Request]:
    """What has been asked for since the last look. Taking a request removes its file, which answers it."""
    taken: list[Request] = []
    for kind in get_args(RequestKind):
        file = layout.request_file(run_folder, kind)
        if file.exists():
            taken.append(Request(kind, int(file.read_text())))
            file.unlink()
    return taken


def write_status(run_folder: Path, status: RunStatus) -> None:
    """Replaces `status.json`."""
    durable.write(run_folder / layout.STATUS, json.dumps(status.to_json()))


def read_status(run_folder: Path) -> RunStatus | None:
    """The last status written; None before the first one."""
    file = run_folder / layout.STATUS
    return RunStatus.from_json(json.loads(file.read_text())) if file.exists() else None
