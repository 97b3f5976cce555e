"""The environment of the libraries that the tests load: quiet, and on few cores."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Set before a library reads them. A test machine has few cores, which several processes share.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Each process of `pytest -n 2` gets the checkout in PYTHONPATH. A job on a cluster would run that, not its
# upload.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("PYTHONPATH", None)

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
    "tests/launch/test_ray_actors.py",
    "tests/rollout/engine/test_vllm_engine.py",
    "tests/whole_runs/test_whole_run.py",
)
"""Modules that start Ray, vLLM, Prometheus or a whole run. They run one after the other."""


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """An actor that is created in this process sets them for itself."""
    loggers = [logging.getLogger(), logging.getLogger("dynalign")]
    levels = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Else one failure would make the tests after it fail."""
    yield
    if request.node.get_closest_marker("e2e") or request.node.get_closest_marker("chaos"):
        from tests.worlds.command import kill_left_over  # it copies the environment, which is set above

        kill_left_over()


class ByModule(LoadScopeScheduling):
    """With `pytest -n 2`, one process runs `REAL` and the other one everything else meanwhile.

    A module's tests stay in one process, because they share what its fixtures start. xdist's own way, the
    mark `xdist_group`, has no effect with pytest 9.2 (pytest-xdist, issue 1386)."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "real" if module in REAL else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByModule(config, log)
