"""Items from the hub: the real `datasets` library against a hub on this machine, and its cache alone."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynalign.evaluation.suites.preparing import prepared
from dynalign.evaluation.suites.tasks import TASKS
from tests.worlds.dataset_hub import dataset_hub
from tests.worlds.product import ROOT
from tests.worlds.suite_items import AIME, GPQA, IFEVAL, Rows

NAMES = ("ifeval", "gpqa_diamond", "aime25")
AWAY = "http://127.0.0.1:9"
"""A hub that is not there. `HF_HUB_OFFLINE` spares the library's tries to reach it, half a minute a set."""


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


SETS = {
    "google/IFEval": {"README.md": b"# IFEval\n", "ifeval_input_data.jsonl": lines(IFEVAL)},
    "Idavidrein/gpqa": {
        "README.md": b"---\nconfigs:\n- config_name: gpqa_main\n  data_files: gpqa_main.csv\n"
        b"- config_name: gpqa_diamond\n  data_files: gpqa_diamond.csv\n---\n",
        "gpqa_main.csv": table(GPQA[:1]),
        "gpqa_diamond.csv": table(GPQA),
    },
    "math-ai/aime25": {"README.md": b"# AIME 2025\n", "test.jsonl": lines(AIME)},
}
"""The three data sets in the layout that they have on the hub."""


def loaded(address: str, cache: Path) -> list[Any]:
    """What the product has of each task, in a process whose hub is at `address`."""
    variables = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    variables |= {"HF_HUB_OFFLINE": "1"} if address == AWAY else {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-m", "tests.worlds.dataset_hub", *NAMES]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


def judged(name: str, rows: Rows, folder: Path) -> list[str]:
    """The items as the harness reads them."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(rows))
    (task,) = prepared([TASKS[name]], folder, 100)
    return [repr(item) for item in task.items]


@pytest.mark.e2e
def test_the_papers_sets_are_read_from_a_hub_then_from_its_cache_and_are_the_items_of_a_file(
    tmp_path: Path,
) -> None:
    with dataset_hub(SETS) as hub:
        online = loaded(hub.address, tmp_path / "cache")
    assert loaded(AWAY, tmp_path / "cache") == online
    for name, rows, written in zip(NAMES, online, (IFEVAL, GPQA, AIME), strict=True):
        assert judged(name, rows, tmp_path / "hub") == judged(name, written, tmp_path / "files")


@pytest.mark.e2e
def test_a_set_that_is_missing_gated_or_out_of_reach_is_named_with_the_way_to_provide_it(
    tmp_path: Path,
) -> None:
    with dataset_hub({"Idavidrein/gpqa": SETS["Idavidrein/gpqa"]}, frozenset({"Idavidrein/gpqa"})) as hub:
        told = loaded(hub.address, tmp_path / "empty")
    told += loaded(AWAY, tmp_path / "empty too")
    for mistakes, name in zip(told, NAMES * 2, strict=True):
        (line,) = mistakes
        source = TASKS[name].source
        assert line.startswith(f"the data set {source.path} of {name}"), line
        assert "is not in the hub's cache and cannot be fetched" in line
        assert f"put its split {source.split} into the --data folder as {name}.jsonl" in line
        assert "HF_TOKEN opens a set whose licence was accepted" in line
    assert "gated" in told[1][0]
