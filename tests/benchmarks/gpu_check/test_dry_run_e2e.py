"""The whole check on a CPU: every stage with its real runs and engines, so that none fails on the day for a
reason that has nothing to do with GPUs.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from dynalign.benchmarks.gpu_check.outcomes import read
from dynalign.benchmarks.gpu_check.stages import STAGES
from tests.worlds.command import ENVIRONMENT
from tests.worlds.product import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


def test_the_whole_dry_run_passes_every_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dynalign.benchmarks.gpu_check", "--device", "cpu", "--minutes", "55"]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=3500,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = read(tmp_path / "results.jsonl")
    assert [each.stage for each in found] == [stage.name for stage in STAGES]
    assert {each.status for each in found} == {"passed"}
    assert not [each.stage for each in found if not each.figures]
    assert all(f"\n{stage.name} " in ended.stdout for stage in STAGES)
