"""A run of an experiment as a process, and how many have room side by side."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dynalign.launch.commands.experiment_child import CommandProcess
from dynalign.launch.commands.experiment_room import MOST_AT_ONCE, gpus_of, room_for
from dynalign.launch.plan.nodes import Cluster, Node
from dynalign.launch.plan.plan import PlacementPlan, plan
from tests.launch.models.test_shape import SMOL
from tests.worlds.product import ROOT

ORPHANED = """
import os, subprocess, sys, time
from dynalign.launch.commands.experiment_child import ends_with
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"],
    preexec_fn=ends_with(os.getpid()),
    start_new_session=True,
)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_is_a_process_whose_lines_go_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "a-s0.log"
    process = CommandProcess(["explain", "no-such-config"], tmp_path / "runs" / "a-s0", log)
    deadline_s = time.monotonic() + 100
    while process.poll() is None:
        assert time.monotonic() < deadline_s
        assert process.silent_s() < 60
        time.sleep(0.05)
    assert process.poll() == 2
    lines = log.read_text().splitlines()
    assert lines[0] == "$ dynalign explain no-such-config"
    assert lines[1].startswith("no-such-config: there is no such config")
    process.ask_to_stop()  # it has ended, and nothing happens
    process.kill()


def test_a_run_is_asked_to_stop_when_its_experiment_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANED], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(30)
    gone, alive = psutil.wait_procs([child], timeout=30)
    assert alive == []


def test_a_command_that_is_killed_takes_its_session_along(tmp_path: Path) -> None:
    process = CommandProcess(["--help"], tmp_path, tmp_path / "log")
    process.kill()
    assert process.poll() in (-signal.SIGKILL, 0)


@pytest.mark.parametrize(
    ("cores", "gpus", "room"), [(2, 0, 1), (9, 0, 4), (1, 0, 1), (1000, 0, MOST_AT_ONCE)]
)
def test_as_many_runs_have_room_as_the_clusters_cores_hold(cores: int, gpus: int, room: int) -> None:
    assert room_for(planned(), machines(cores, gpus)) == room


def test_gpus_bound_the_runs_and_engines_that_share_one_count_once() -> None:
    separate = planned("placement.device=gpu", "placement.mode=separate")
    shared = planned("placement.device=gpu", "placement.mode=shared", "algorithm.max_staleness=0")
    assert (gpus_of(separate), gpus_of(shared)) == (2, 1)
    assert room_for(separate, machines(64, 6)) == 3
    assert room_for(shared, machines(64, 6)) == 6


def test_a_laptop_has_room_for_one_whatever_its_cores(tmp_path: Path) -> None:
    here = Cluster((Node("this machine", tuple(range(64)), 10**12),), started_here=True)
    assert room_for(planned(), here) == 1


def machines(cores: int, gpus: int) -> Cluster:
    return Cluster((Node("a", tuple(range(cores)), 10**12, (0,) * gpus),))


def planned(*overrides: str) -> PlacementPlan:
    from dynalign.configs.load import load_run

    return plan(load_run("quickstart", overrides).settings, SMOL, machines(64, 8), context_tokens=1000)
