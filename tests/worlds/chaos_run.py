"""A run that goes on while a test kills or scales it, and the account of its groups at the end."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from dynalign.benchmarks.chaos.audit import audit
from tests.worlds.command import dynalign, train
from tests.worlds.tiny_run import config

ENDLESS = ("steps=20000",)
"""Of a run that ends when it is stopped. The audit needs all its experience; the disk must hold that."""


def steps(folder: Path) -> int:
    """Rows of metrics.jsonl: one for the start, and one for each committed step."""
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def finish(file: Path, folder: Path, process: "subprocess.Popen[str]", staleness: int = 1) -> None:
    """Stops the run, trains three more steps, and accounts for every group. staleness: its bound."""
    assert subprocess.run(dynalign("stop", str(folder)), timeout=120).returncode == 0
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    done = json.loads((folder / "summary.json").read_text())["step"]
    ended = train(file, f"steps={done + 3}")
    assert (ended.code, ended.left_over) == (0, ()), ended.output
    found = audit(folder, staleness)
    assert found.mistakes == ()
    assert found.issued == found.trained + found.withheld


def judged_by(folder: Path, function: str, **changed: Any) -> Path:
    """A configuration file in `folder` whose judge is a function of `tests.worlds.chaos_rewards`."""
    file = config(folder, algorithm={"max_staleness": 1}, **changed)
    settings = yaml.safe_load(file.read_text())
    settings["judge"] = {"kind": "function", "function": f"tests.worlds.chaos_rewards:{function}"}
    file.write_text(yaml.safe_dump(settings))
    return file
