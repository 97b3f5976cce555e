"""Requests to the driver of a run, and the status that it writes: plain files, for any shell that sees the
run folder.

    driver   writes status.json every second, and takes requests
    shells   read status.json; leave stop.request (pause, resume, scale), and wait until the file is gone

New prompts are a request to the ledger, in prompts.request, which it takes at the end of a step.

Files need no token of the cluster, are read at once, and work when the cluster cannot be reached.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dynalign.configs.errors import RecordError, one_line
from dynalign.configs.sections.rollout import MOST_WORKERS
from dynalign.run_folder import durable, layout
from dynalign.run_folder.run_status import RunStatus

RequestKind = Literal["pause", "resume", "stop", "scale"]

PROMPTS = "prompts"
"""The request that the ledger takes, not the driver."""

_LONGEST = 64
"""Characters that are read of a request: more than any number of workers has."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a shell asks the driver for.

    Example: `Request("scale", 12)`, which is a file `scale.request` that contains `12`.
    """

    kind: RequestKind
    """What is asked for."""
    workers: int = 0
    """The wanted number of rollout workers for `scale`; 0 for the others."""


def leave(run_folder: Path, request: Request) -> Path:
    """Leaves a request. The returned file disappears when the driver takes it."""
    file = layout.request_file(run_folder, request.kind)
    durable.write(file, str(request.workers))
    return file


def take(run_folder: Path) -> list[Request]:
    """The requests since the last call. Taking one removes its file, which is the answer to the shell.

    pause, resume and stop need no content. A scale without a possible number of workers is removed and
    logged: any user of the folder can write there, and a slip must not end a run.
    """
    taken: list[Request] = []
    for kind in get_args(RequestKind):
        file = layout.request_file(run_folder, kind)
        if file.exists():
            try:
                request = _read(file, kind)
                file.unlink()
            except OSError as error:
                logger.warning("%s cannot be taken: %s", file, error)
                continue
            if request is not None:
                taken.append(request)
    return taken


def leave_prompts(run_folder: Path, content_hash: str) -> Path:
    """Asks the run to draw from added prompts. The returned file disappears when they are taken, now or when
    the run goes on."""
    file = layout.request_file(run_folder, PROMPTS)
    durable.write(file, content_hash)
    return file


def waiting_prompts(run_folder: Path) -> str | None:
    """What the request for new prompts holds, whatever that is; None without one. Raises OSError."""
    try:
        with layout.request_file(run_folder, PROMPTS).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_LONGEST).strip()
    except FileNotFoundError:
        return None


def prompts_settled(run_folder: Path) -> None:
    """The request for new prompts was taken or refused. Raises OSError."""
    layout.request_file(run_folder, PROMPTS).unlink(missing_ok=True)


def _read(file: Path, kind: RequestKind) -> Request | None:
    """The request; None for one that cannot be followed. Raises OSError."""
    if kind != "scale":
        return Request(kind)
    with file.open(encoding="utf-8", errors="replace") as stream:
        content = stream.read(_LONGEST).strip()
    if content.isascii() and content.isdigit() and 1 <= int(content) <= MOST_WORKERS:
        return Request(kind, int(content))
    logger.warning("%s is ignored: it holds %r, not a number from 1 to %d", file, content, MOST_WORKERS)
    return None


def write_status(run_folder: Path, status: RunStatus) -> None:
    """Replaces `status.json`."""
    durable.write(run_folder / layout.STATUS, json.dumps(status.to_json()))


def read_status(run_folder: Path) -> RunStatus | None:
    """The last status written; None before the first one. Raises RecordError for a file that holds none."""
    file = run_folder / layout.STATUS
    try:
        return RunStatus.from_json(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, IsADirectoryError) as error:
        remedy = "remove it: the driver writes it again every second"
        raise RecordError(f"{file} holds no status of a run ({one_line(error)}); {remedy}") from error
