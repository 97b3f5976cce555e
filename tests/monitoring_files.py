"""Writes what is made from code: `python -m tests.monitoring_files`. Tests refuse files that differ from it."""

import json
from pathlib import Path

from actors.exported_metrics import table
from tests.dashboards import TRAINING
from tests.dashboards_health import FAULTS, SELF_REWARD
from tests.dashboards_rollout import ROLLOUT
from tests.grafana_model import dashboard_json
from tests.product import ROOT

DOCS = ROOT / "docs" / "metrics.md"
DASHBOARDS = {"training": TRAINING, "rollout": ROLLOUT, "self-reward": SELF_REWARD, "faults": FAULTS}
"""File name under k8s/monitoring/dashboards → what it holds."""
MARK = "<!-- from actors/exported_metrics.py: python -m tests.monitoring_files -->\n"


def files() -> dict[Path, str]:
    """Every file with its content. docs/metrics.md: what stands before the mark is written by hand."""
    folder = ROOT / "k8s" / "monitoring" / "dashboards"
    made = {folder / f"{name}.json": json.dumps(dashboard_json(each), indent=1) + "\n" for name, each in DASHBOARDS.items()}
    return made | {DOCS: DOCS.read_text().partition(MARK)[0] + MARK + "\n" + table()}


if __name__ == "__main__":
    for file, content in files().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
