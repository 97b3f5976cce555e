"""What this machine offers: cores, free memory, GPUs.

Inside a container its limits count, not only the host's figures.
"""

import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from dynalign.launch.plan.nodes import Node

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA_SMI_DEADLINE_S = 30.0
"""A driver that was just loaded takes seconds to answer."""
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of bfloat16 instructions in /proc/cpuinfo, on x86 and on ARM."""
KILL_SHARE = 0.95
"""Ray's default for RAY_memory_usage_threshold."""


def this_machine(with_gpus: bool) -> Node:
    """This machine as a node.

    with_gpus: also ask for its GPUs, which takes up to seconds.
    """
    cores = tuple(sorted(os.sched_getaffinity(0)))
    features = set(_read(Path("/proc/cpuinfo")).split())
    return Node(
        "this machine",
        cores,
        free_memory_bytes(_CGROUP),
        _gpus() if with_gpus else (),
        amx="amx_tile" in features,
        bfloat16=native_bfloat16(features),
        total_bytes=total_memory_bytes(_CGROUP),
        kill_share=kill_share(os.environ),
    )


def native_bfloat16(features: set[str]) -> bool:
    """Whether a CPU has instructions for bfloat16, by the words of /proc/cpuinfo; True without any."""
    return not features or bool(features & _BFLOAT16)


def kill_share(variables: Mapping[str, str]) -> float | None:
    """The share of a node's memory above which Ray's memory monitor kills actors, by the variables that Ray
    is started with; None where they switch it off."""
    if variables.get("RAY_memory_monitor_refresh_ms", "").strip() == "0":
        return None
    try:
        share = float(variables.get("RAY_memory_usage_threshold", KILL_SHARE))
    except ValueError:
        return KILL_SHARE
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else KILL_SHARE


def total_memory_bytes(cgroup: Path) -> int:
    """Memory of the host, or the container's limit, whichever is less. cgroup: as in `free_memory_bytes`."""
    total = int(psutil.virtual_memory().total)
    limit = _read(cgroup / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


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
