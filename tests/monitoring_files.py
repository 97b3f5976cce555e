"""Writes what is made from code: `python -m tests.monitoring_files`. Tests refuse files that differ from it."""

import json
from pathlib import Path

import yaml

from actors.exported_metrics import table
from tests.dashboards import TRAINING
from tests.dashboards_health import FAULTS, SELF_REWARD
from tests.dashboards_rollout import ROLLOUT
from tests.grafana_model import dashboard_json
from tests.product import ROOT
from tests.prometheus_tools import MONITORING

DOCS = ROOT / "docs" / "metrics.md"
DASHBOARDS = {"training": TRAINING, "rollout": ROLLOUT, "self-reward": SELF_REWARD, "faults": FAULTS}
"""File name under k8s/monitoring/dashboards → what it holds."""
MARK = "<!-- from actors/exported_metrics.py: python -m tests.monitoring_files -->\n"


RULE_HEAD = "# The alert rules for the Prometheus operator, made from rules.yaml: python -m tests.monitoring_files\n"


def prometheus_rule() -> str:
    """rules.yaml as the custom resource that the Prometheus operator reads."""
    metadata = {"name": "dynalign", "labels": {"release": "prometheus"}}  # as pod-monitor.yaml
    spec = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    whole = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": spec}
    return RULE_HEAD + yaml.safe_dump(whole, sort_keys=False, width=140)


def files() -> dict[Path, str]:
    """Every file with its content. docs/metrics.md: what stands before the mark is written by hand."""
    folder = MONITORING / "dashboards"
    made = {folder / f"{name}.json": json.dumps(dashboard_json(each), indent=1) + "\n" for name, each in DASHBOARDS.items()}
    made[MONITORING / "prometheus-rule.yaml"] = prometheus_rule()
    return made | {DOCS: DOCS.read_text().partition(MARK)[0] + MARK + "\n" + table()}


if __name__ == "__main__":
    for file, content in files().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
