"""The files that are made from code: dashboards, alert rules for the operator, tables of docs/metrics.md.

`python -m tests.worlds.monitoring_files` writes them. A test refuses files that differ.
"""

import json
from pathlib import Path

import yaml

from dynalign.actors.coordinator.exported_metrics import table
from tests.worlds.dashboards import TRAINING
from tests.worlds.dashboards_health import FAULTS, SELF_REWARD
from tests.worlds.dashboards_rollout import ROLLOUT
from tests.worlds.grafana_model import dashboard_json
from tests.worlds.product import ROOT
from tests.worlds.prometheus_tools import MONITORING, rules

DOCS = ROOT / "docs" / "metrics.md"
DASHBOARDS = {"training": TRAINING, "rollout": ROLLOUT, "self-reward": SELF_REWARD, "faults": FAULTS}
"""File name under k8s/monitoring/dashboards → what it holds."""

MARK = (
    "<!-- From here on made from k8s/monitoring/rules.yaml and actors/coordinator/exported_metrics.py: "
    "python -m tests.worlds.monitoring_files -->\n"
)
RULE_HEAD = (
    "# The alert rules for the Prometheus operator, made from rules.yaml: "
    "python -m tests.worlds.monitoring_files\n"
)


def prometheus_rule() -> str:
    """rules.yaml as the custom resource that the Prometheus operator reads."""
    metadata = {"name": "dynalign", "labels": {"release": "prometheus"}}  # as pod-monitor.yaml
    spec = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    whole = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata,
        "spec": spec,
    }
    return RULE_HEAD + yaml.safe_dump(whole, sort_keys=False, width=140)


def alerts() -> str:
    """The table of alerts, each with its runbook."""
    lines = ["| alert | severity | after | what to do |", "|---|---|---|---|"]
    for rule in rules():
        runbook = rule["annotations"]["runbook"].replace("{{ $labels.run }}", "RUN")
        lines.append(
            f"| `{rule['alert']}` | {rule['labels']['severity']} | {rule.get('for', 'at once')} | {runbook} |"
        )
    return "\n".join(lines) + "\n"


def docs() -> str:
    """docs/metrics.md. What stands before the mark is written by hand and stays."""
    written = DOCS.read_text().partition(MARK)[0]
    return (
        f"{written}{MARK}\n## What each alert asks for\n\n{alerts()}\n## What dynalign exports\n\n{table()}"
    )


def files() -> dict[Path, str]:
    """Path → content of every file that is made."""
    folder = MONITORING / "dashboards"
    made = {
        folder / f"{name}.json": json.dumps(dashboard_json(each), indent=1) + "\n"
        for name, each in DASHBOARDS.items()
    }
    made[MONITORING / "prometheus-rule.yaml"] = prometheus_rule()
    return made | {DOCS: docs()}


if __name__ == "__main__":
    for file, content in files().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
