"""The real `prometheus` and `promtool` (Debian's package `prometheus`). Without them a test is skipped."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.worlds.product import ROOT

MONITORING = ROOT / "k8s" / "monitoring"
START_DEADLINE_S = 60.0


def tool(name: str) -> str:
    """The path of the program. Skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        why = "alert rules and dashboards are not evaluated here"
        pytest.skip(f"{name} is not installed (Debian's package prometheus): {why}")
    return found


def rules() -> list[dict[str, Any]]:
    """Every alert rule that is shipped."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@dataclass(frozen=True)
class Server:
    """A Prometheus that runs."""

    address: str
    """host:port of its HTTP API."""

    def get(self, path: str, **parameters: str) -> Any:
        """The answer's data. Raises AssertionError with Prometheus' own words when it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{parameters}: {refused.read().decode()}") from refused

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def until(self, expression: str, deadline_s: float) -> list[dict[str, Any]]:
        """What the expression returns, as soon as it returns anything."""
        end_s = time.monotonic() + deadline_s
        while not (found := self.query(expression)):
            assert time.monotonic() < end_s, f"{expression} has returned nothing for {deadline_s:g} s"
            time.sleep(0.2)
        return found


@contextmanager
def prometheus(folder: Path, *target_files: Path, interval: str = "1s") -> Iterator[Server]:
    """A Prometheus with the shipped configuration and rules.

    target_files: of scrape targets, one for each of the first scrape configurations; the others are left out.
    interval: between scrapes, and between evaluations of the rules.
    """
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    config["rule_files"] = [str(MONITORING / "rules.yaml")]
    for scrape, file in zip(config["scrape_configs"], target_files, strict=False):
        scrape["file_sd_configs"] = [{"files": [str(file)], "refresh_interval": interval}]
    config["scrape_configs"] = config["scrape_configs"][: len(target_files)]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        _until_ready(address, process, folder / "prometheus.log")
        yield Server(address)
    finally:
        process.kill()
        process.wait(timeout=30)


def _until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end_s = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.1)
