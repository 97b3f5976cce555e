"""All suites run from local files where there is no network at all: in a network namespace of their own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynalign.evaluation.suites.tasks import SUITES
from tests.worlds.product import ROOT

NAMESPACE = ["unshare", "--map-root-user", "--net"]
LIMIT_S = 280
"""It takes 13 s of a core, most of it the import of the harness."""


def no_namespace() -> str | None:
    """Why there can be no network namespace here; None where there can."""
    if shutil.which("unshare") is None:
        return "unshare is missing"
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, timeout=10)
    return tried.stderr.strip() or "it is refused" if tried.returncode else None


@pytest.mark.timeout(300)
def test_all_suites_run_from_local_files_without_a_network(tmp_path: Path) -> None:
    reason = no_namespace()
    if reason is not None:
        pytest.skip(f"no network namespace: {reason}")
    command = [*NAMESPACE, sys.executable, "-m", "tests.worlds.suites_offline", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "punkt" not in ended.stdout + ended.stderr
    for suite in SUITES:
        assert (tmp_path / "out" / f"suite-{suite}.md").read_text().count("\n") > 3
