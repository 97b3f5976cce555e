"""The environment of the libraries that the tests load: quiet, and on few cores."""

import os
from collections.abc import Iterable

import pytest
from hypothesis import settings

# Set before a library reads them. A test machine has few cores, which several processes share.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A shared machine stalls now and then, so Hypothesis sets no deadline. Its examples are the same every time,
# so that a new failure comes from a change of the code.
settings.register_profile("dynalign", deadline=None, derandomize=True)
settings.load_profile("dynalign")

REAL = (
    "tests/actors/coordinator/test_alerts.py",
    "tests/actors/coordinator/test_monitoring.py",
    "tests/actors/supervision/test_worker_pool.py",
    "tests/house/test_packaging.py",
    "tests/launch/commands/test_replay.py",
    "tests/launch/ray_cluster/test_on_a_cluster.py",
    "tests/launch/test_spawner.py",
    "tests/rollout/engine/test_vllm_engine.py",
    "tests/whole_runs/test_whole_run.py",
)
"""Modules that start Ray, vLLM, Prometheus or a whole run. They run one after the other."""


@pytest.hookimpl(tryfirst=True)  # xdist's own hook reads the marks
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """With `pytest -n 2 --dist loadgroup`, one process runs `REAL` and the other everything else meanwhile.

    A module's tests stay in one process, because they share what its fixtures start."""
    for item in items:
        module = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("real" if module in REAL else module))
