"""A real Prometheus scrapes a real run, vLLM and DeepSpeed on a tiny model, and the Ray cluster it runs on, as the shipped files say."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.chat_models import tiny_chat_model
from tests.command import ENVIRONMENT, MARK, dynalign
from tests.prometheus_tools import Server, prometheus, rules, tool
from tests.ray_cluster import cluster
from tests.test_monitoring import expressions
from tests.test_whole_run import SETTINGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]

NOT_HERE = ("ray_node_gpus_utilization", "ray_node_gram_used", "dynalign_frozen_judge_reward_mean")
"""What a CPU has not, and what a run without a frozen judge does not measure."""
EVERYTHING = {
    "steps": 100_000,
    "rollout": SETTINGS["rollout"] | {"record_behaviour": True},
    "algorithm": {"kl_coef": 0.01},
    "heldout": {"prompts": 2, "every_steps": 4},
    "checkpoint": {"every_steps": 3, "keep_last": 1},
}
"""What is measured only on demand is asked for."""
DATA_DEADLINE_S = 300.0


def wait_for(file: Path, process: "subprocess.Popen[bytes]", deadline_s: float) -> None:
    end_s = time.monotonic() + deadline_s
    while not file.exists():
        assert process.poll() is None, "the run ended before it began"
        assert time.monotonic() < end_s, f"{file} is not there after {deadline_s:g} s"
        time.sleep(0.2)


def without_data(server: Server, deadline_s: float) -> dict[str, str]:
    """The expressions that have returned nothing in all that time; each needs data once (nothing is leased for a moment, say)."""
    waiting = {place: each for place, each in expressions().items() if not any(name in each for name in NOT_HERE)}
    end_s = time.monotonic() + deadline_s
    while waiting and time.monotonic() < end_s:
        waiting = {place: each for place, each in waiting.items() if not server.query(each)}
        time.sleep(1)
    return waiting


def test_every_expression_and_rule_is_answered_by_a_run_on_a_cluster_and_its_end_leaves_no_target(tmp_path: Path) -> None:
    tool("prometheus")
    model = tiny_chat_model(tmp_path / "model")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS | EVERYTHING | {"model": str(model)}))
    target = tmp_path / "runs" / "tiny.prometheus.json"
    with cluster(cpus=4) as ray, (tmp_path / "run.log").open("w") as log:
        agents = Path(ray.environment["HOME"]) / "ray" / "session_latest" / "prom_metrics_service_discovery.json"
        environment = ray.environment | {MARK: ENVIRONMENT[MARK]}
        command = dynalign("train", str(tmp_path / "tiny.yaml"), f"runs={tmp_path / 'runs'}")
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(target, run, 120)
            with prometheus(tmp_path, target.parent / "*.prometheus.json", agents) as server:
                missing = without_data(server, DATA_DEADLINE_S)
                assert missing == {}, (tmp_path / "run.log").read_text()[-2000:]
                loaded = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
                assert sorted(rule["name"] for rule in loaded) == sorted(rule["alert"] for rule in rules())
                assert {rule["health"] for rule in loaded} == {"ok"}
                firing = {sample["metric"]["alertname"] for sample in server.query('ALERTS{alertstate="firing"}')}
                assert not firing & {"DynalignLawBroken", "DynalignNoStep", "DynalignSupervisionSilent", "DynalignEndpointDown"}
                assert not server.query("dynalign_frozen_judge_reward_mean")
                status = json.loads((tmp_path / "runs" / "tiny" / "status.json").read_text())
                assert json.loads(target.read_text()) == [{"targets": [status["metrics_address"]]}]
                run.send_signal(signal.SIGINT)
                assert run.wait(timeout=90) == 130, (tmp_path / "run.log").read_text()
                assert not target.exists()
        finally:
            run.kill()
            run.wait(timeout=30)
