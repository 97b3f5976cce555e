"""What this machine offers: cores, free memory, GPUs.

Inside a container its limits count, not only the host's figures.
"""

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from dynalign.launch.plan.nodes import Node

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA_SMI_DEADLINE_S = 30.0
"""A driver that was just loaded takes seconds to answer."""


def this_machine(with_gpus: bool) -> Node:
    """This machine as a node.

    with_gpus: also ask for its GPUs, which takes up to seconds.
    """
    cores = tuple(sorted(os.sched_getaffinity(0)))
    amx = "amx_tile" in _read(Path("/proc/cpuinfo")).split()
    return Node("this machine", cores, free_memory_bytes(_CGROUP), _gpus() if with_gpus else (), amx=amx)


def free_memory_bytes(cgroup: Path) -> int:
    """Free memory of the host, or what is left of the container's limit, whichever is less.

    cgroup: the container's cgroup-v2 folder.
    """
    free = int(psutil.virtual_memory().available)
    limit = _read(cgroup / "memory.max")
    if limit in ("", "max"):
        return free
    # The page cache is charged to the container and given back under pressure.
    reclaimable = sum(
        int(line.split()[1])
        for line in _read(cgroup / "memory.stat").splitlines()
        if line.startswith("inactive_file ")
    )
    return max(0, min(free, int(limit) - int(_read(cgroup / "memory.current") or 0) + reclaimable))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _gpus() -> tuple[int, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Set but empty, the variable hides every GPU.
    if visible == "" or shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if visible:
        query += ["-i", visible]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_NVIDIA_SMI_DEADLINE_S, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return ()  # a driver that does not answer offers no GPU
    return tuple(int(line) * 2**20 for line in answer.stdout.split("\n") if line.strip().isdigit())
