"""Log lines: where they come from, and who is quiet.

In a process of their own: a process has one set of log handlers.
"""

import os
import subprocess
import sys

import pytest

from dynalign.configs.errors import UserError
from dynalign.configs.load import load_run
from tests.worlds.product import ROOT

SCRIPT = """
import logging, sys
from dynalign.actors.logs import configure
from dynalign.configs.load import load_run
step = 3
logging.basicConfig()
configure(load_run("quickstart", sys.argv[1:]).settings, "rollout-0", lambda: f"1.{step}")
log = logging.getLogger("dynalign.actors.worker.rollout_worker")
log.debug("detail")
log.info("loaded %d buckets", 5)
step = 4
log.warning("slow")
logging.getLogger("urllib3").info("library chatter")
logging.getLogger("urllib3").warning("library warning")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def lines(*overrides: str) -> list[str]:
    """What a worker's process writes to standard error, which Ray keeps as that worker's log."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    return ended.stderr.splitlines()


def test_every_line_says_run_actor_and_the_version_of_the_moment() -> None:
    place, *said = [line.split(" ", 2)[2] for line in lines("name=mine") if line.startswith("20")]
    assert place.startswith(
        f"INFO run=mine actor=rollout-0 version=1.3 dynalign.actors.logs: on {os.uname().nodename}, process "
    )
    assert said == [
        "INFO run=mine actor=rollout-0 version=1.3 dynalign.actors.worker.rollout_worker: loaded 5 buckets",
        "WARNING run=mine actor=rollout-0 version=1.4 dynalign.actors.worker.rollout_worker: slow",
        "WARNING run=mine actor=rollout-0 version=1.4 urllib3: library warning",
        "ERROR run=mine actor=rollout-0 version=1.4 dynalign.actors.worker.rollout_worker: broken",
    ]


def test_a_traceback_follows_its_line() -> None:
    assert lines()[-1] == "ZeroDivisionError: division by zero"


def test_the_level_is_a_setting_and_leaves_libraries_alone() -> None:
    assert any("DEBUG" in line and "detail" in line for line in lines("log_level=debug"))
    assert not any("chatter" in line for line in lines("log_level=debug"))
    assert [line for line in lines("log_level=error") if "slow" in line] == []


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UserError, match="log_level"):
        load_run("quickstart", ["log_level=loud"])
