"""A real Prometheus scrapes a real endpoint: every dashboard expression and every rule is evaluated and
returns data.

The endpoint is the product's, told what a run tells it; Ray's agent is what it once answered
(golden/ray_agent.txt).
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign.actors.coordinator.exported_metrics import EXPORTED
from dynalign.actors.coordinator.exporter import Exporter
from tests.worlds.exported_run import exporter, tell_start, tell_step
from tests.worlds.grafana_model import ANNOTATIONS, COLUMNS
from tests.worlds.monitoring_files import DASHBOARDS, files
from tests.worlds.product import ROOT, refuse
from tests.worlds.prometheus_tools import MONITORING, Server, prometheus, rules

AGENT = (Path(__file__).parents[2] / "golden" / "ray_agent.txt").read_bytes()
LOADED = {name: json.loads((MONITORING / "dashboards" / f"{name}.json").read_text()) for name in DASHBOARDS}
UNITS = {"short", "percentunit", "percent", "s", "bytes", "Bps", "sci", "name"}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Every expression of every dashboard by where it stands, with Grafana's variables filled in for
    scrapes of a second."""
    found = {}
    for name, dashboard in LOADED.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                found[f"{name}: {panel['title']} {target['refId']}"] = filled(target["expr"])
    return found


def filled(expression: str) -> str:
    filled_in = expression.replace("$__rate_interval", "10s").replace("$run", ".+")
    assert "$" not in filled_in.replace('"$1"', ""), (
        f"{expression} has a variable that no dashboard defines"
    )  # $1: of label_replace
    return filled_in


class Agent(BaseHTTPRequestHandler):
    """Ray's metrics agent."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(AGENT)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class Story(threading.Thread):
    """A run that makes a step twice a second, until told to end."""

    def __init__(self, endpoint: Exporter) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.ended = endpoint, threading.Event()

    def run(self) -> None:
        tell_start(self.endpoint)
        for step in range(1, 10_000):
            tell_step(self.endpoint, step)
            if step == 2:
                self.endpoint.checkpoint_failed()
                self.endpoint.checkpointed(step)
            if self.ended.wait(0.5):
                return


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus that has scraped run and agent for some seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    agent = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    ray = folder / "ray.json"
    ray.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": [f"127.0.0.1:{agent.server_port}"]}]))
    endpoint = exporter(folder)
    story = Story(endpoint)
    assert endpoint.start() is not None
    story.start()
    try:
        with prometheus(folder, folder / "runs" / "*.prometheus.json", ray) as server:
            server.until(
                "changes(dynalign_step[10s]) > 3 "
                "and on (run) rate(dynalign_worker_weight_syncs_total[10s]) > 0",
                60,
            )
            server.until("rate(ray_vllm_prefix_cache_queries_total[10s]) >= 0", 60)
            yield server
    finally:
        story.ended.set()
        endpoint.end()
        agent.shutdown()
        agent.server_close()


def test_the_files_are_what_the_code_says() -> None:
    refuse(
        f"{file.relative_to(ROOT)} differs from the code: run `python -m tests.worlds.monitoring_files`"
        for file, content in files().items()
        if not file.exists() or file.read_text() != content
    )


def test_every_dashboard_is_loaded_by_the_sidecar_and_every_file_of_grafanas_is_whole() -> None:
    [generated] = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())["configMapGenerator"]
    assert set(generated["files"]) == {
        f"dashboards/{file.name}" for file in (MONITORING / "dashboards").glob("*")
    }
    assert len(generated["files"]) == len(DASHBOARDS)
    assert (
        yaml.safe_load((MONITORING / "grafana" / "dashboards.yaml").read_text())["providers"][0]["type"]
        == "file"
    )
    assert (
        yaml.safe_load((MONITORING / "grafana" / "datasource.yaml").read_text())["datasources"][0]["type"]
        == "prometheus"
    )


def test_every_panel_has_its_own_place_and_number_a_description_and_a_unit() -> None:
    for dashboard in LOADED.values():
        whole = dashboard["panels"]
        assert [panel["id"] for panel in whole] == list(range(1, len(whole) + 1))
        for panel in panels(dashboard):
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
            assert panel["targets"], panel["title"]
        for one, other in combinations((panel["gridPos"] for panel in whole), 2):
            apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert one["x"] + one["w"] <= COLUMNS


def test_dashboards_are_told_apart_and_their_titles_are_the_missions() -> None:
    titles = {dashboard["title"].removeprefix("dynalign / ") for dashboard in LOADED.values()}
    assert titles == {"Training", "Rollout and engine", "Self-reward health", "Faults"}
    assert len({dashboard["uid"] for dashboard in LOADED.values()}) == len(LOADED)
    for dashboard in LOADED.values():
        assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "run"]


def test_every_exported_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    """What nobody looks at is not exported. Settings and time stamps are read by way of others."""
    text = " ".join([*expressions().values(), *(rule["expr"] for rule in rules())])
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"dynalign_\w+", text)}
    unused = {each.full_name for each in EXPORTED} - used
    background = (
        "build_info prompts_per_step gpus_reserved workers_min workers_max worker_groups_in_flight "
        "completion_tokens judgements_per_second"
    )
    assert unused <= {f"dynalign_{name}" for name in background.split()} | {
        "dynalign_generate_seconds",
        "dynalign_score_seconds",
        "dynalign_learner_wait_seconds",
        "dynalign_weight_sync_pause_seconds",
    }


def test_every_dashboard_expression_returns_data(scraped: Server) -> None:
    empty = [place for place, expression in expressions().items() if not scraped.query(expression)]
    assert empty == []


def test_every_number_on_a_dashboard_is_a_number(scraped: Server) -> None:
    for place, expression in expressions().items():
        for sample in scraped.query(expression):
            assert sample["value"][1] not in ("+Inf", "-Inf"), place


def test_the_run_variable_and_the_annotations_find_what_they_look_for(scraped: Server) -> None:
    assert scraped.get("label/run/values", **{"match[]": "dynalign_build_info"}) == ["synthetic"]
    for _, expression, _ in ANNOTATIONS.values():
        scraped.query(filled(expression))
    assert scraped.until(filled(ANNOTATIONS["Pool size"][1]), 20)


def test_every_rule_is_evaluated_without_an_error_and_what_it_reads_is_there(scraped: Server) -> None:
    end_s = time.monotonic() + 30
    while True:
        loaded = [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in loaded):
            break
        assert time.monotonic() < end_s, [
            (rule["name"], rule.get("lastError")) for rule in loaded if rule["health"] != "ok"
        ]
        time.sleep(0.5)
    assert sorted(rule["name"] for rule in loaded) == sorted(rule["alert"] for rule in rules())
    missing = {
        name
        for rule in rules()
        for name in re.findall(r"(?:dynalign_\w+|up)\b", rule["expr"])
        if not scraped.query(f"last_over_time({name}[5m])")
    }
    assert missing == set()


def test_the_shipped_configuration_scrapes_the_runs_endpoint_and_rays_agents() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert [scrape["job_name"] for scrape in config["scrape_configs"]] == ["dynalign", "ray"]
    assert (MONITORING / config["rule_files"][0]).exists()


@pytest.mark.e2e  # a quarter of a minute, which Prometheus takes to notice
def test_a_run_that_ends_by_itself_leaves_no_target_that_is_down(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path)
    assert endpoint.start() is not None
    with prometheus(tmp_path, tmp_path / "runs" / "*.prometheus.json") as server:
        server.until('up{job="dynalign"} == 1', 30)
        endpoint.close()
        server.until('absent(up{job="dynalign"})', 30)
