"""What the machine has to give, with a container's limits and a stand-in for nvidia-smi."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from dynalign.launch.plan.machine import (
    free_memory_bytes,
    kill_share,
    native_bfloat16,
    this_machine,
    total_memory_bytes,
)

MIB = 2**20


def limits(folder: Path, maximum: str, current: int = 0, inactive: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{maximum}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file 7\n")
    return folder


def test_a_container_s_limit_counts_and_its_page_cache_is_free(tmp_path: Path) -> None:
    assert (
        free_memory_bytes(limits(tmp_path, str(100 * MIB), current=70 * MIB, inactive=20 * MIB)) == 50 * MIB
    )


def test_a_container_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_memory_bytes(limits(tmp_path, str(100 * MIB), current=120 * MIB)) == 0


def test_without_a_limit_the_host_decides(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert 0 < free_memory_bytes(limits(tmp_path, "max")) <= total
    assert 0 < free_memory_bytes(tmp_path / "absent") <= total


def test_a_container_s_limit_is_all_the_memory_there_is(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert total_memory_bytes(limits(tmp_path, str(100 * MIB))) == 100 * MIB
    assert total_memory_bytes(limits(tmp_path, "max")) == total
    assert total_memory_bytes(tmp_path / "absent") == total


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, 0.95),
        ({"RAY_memory_usage_threshold": "0.8"}, 0.8),
        ({"RAY_memory_usage_threshold": "much"}, 0.95),
        ({"RAY_memory_usage_threshold": "nan"}, 0.95),
        ({"RAY_memory_usage_threshold": "7"}, 1.0),
        ({"RAY_memory_monitor_refresh_ms": "0"}, None),
        ({"RAY_memory_monitor_refresh_ms": "100"}, 0.95),
    ],
)
def test_ray_s_variables_say_when_it_kills(variables: Mapping[str, str], share: float | None) -> None:
    assert kill_share(variables) == share


@pytest.mark.parametrize(
    ("features", "native"),
    [
        ("fpu avx avx2", False),
        ("avx512f avx512bw", False),
        ("avx512f avx512_bf16", True),
        ("amx_bf16 amx_tile", True),
        ("fp asimd bf16", True),
        ("", True),
    ],
)
def test_bfloat16_is_native_where_the_cpu_says_so_or_says_nothing(features: str, native: bool) -> None:
    assert native_bfloat16(set(features.split())) is native


def test_only_cores_that_may_be_used_are_given_out() -> None:
    before = os.sched_getaffinity(0)
    last = max(before)
    os.sched_setaffinity(0, {last})
    try:
        assert this_machine(with_gpus=False).cores == (last,)
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("script", "visible", "gpus"),
    [
        ("echo 81559; echo 40960", None, (81559 * MIB, 40960 * MIB)),
        ('test "$3 $4" = "-i 1" && echo 40960', "1", (40960 * MIB,)),
        ("echo 81559", "", ()),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None, ()),
        ("echo '[N/A]'", None, ()),
    ],
)
def test_gpus_are_those_that_the_driver_shows_to_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, visible: str | None, gpus: tuple[int, ...]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine(with_gpus=True).gpus == gpus
