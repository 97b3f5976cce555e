"""A real Prometheus scrapes a real run, vLLM and DeepSpeed on a tiny model, and the Ray cluster it runs on,
as the shipped files say.

In between the run is scaled and a worker of it is killed: what an operator does and what happens to him is
counted, with the cause.
"""

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from tests.actors.coordinator.test_monitoring import expressions
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import ENVIRONMENT, MARK, dynalign, running
from tests.worlds.prometheus_tools import Server, prometheus, rules, tool
from tests.worlds.ray_cluster import cluster
from tests.worlds.scripted_endpoint import MODEL, judging, scripted_endpoint
from tests.worlds.tiny_run import REAL as SETTINGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]

NOT_HERE = (
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "dynalign_capability_change",
    "dynalign_capability_tokens",
    "dynalign_evaluation_tokens",
    "dynalign_alarm_capability_loss",
    "dynalign_aspect_spread",
    "dynalign_alarm_aspect_imbalance",
    "dynalign_score_position_correlation",
    "dynalign_alarm_reward_collapse",
    "dynalign_alarm_prompt_overfitting",
)
"""What a CPU has not; what a run without a capability probe, factorized scores or a ranked
judge does not measure; and alarms that need tens of steps, which a busy machine does not make in the time."""
EVERYTHING = {
    "steps": 100_000,
    "rollout": SETTINGS["rollout"] | {"record_behaviour": True},
    "algorithm": {"kl_coef": 0.01},
    "heldout": {"prompts": 2, "every_steps": 4},
    "checkpoint": {"every_steps": 3, "keep_last": 1},
}
PROBES = {"probes": ["beside", "frozen"], "probe_fraction": 1.0, "pool": {"engine": "deterministic"}}
"""What is measured only on demand is asked for."""
DATA_DEADLINE_S = 300.0


def wait_for(file: Path, process: "subprocess.Popen[bytes]", deadline_s: float) -> None:
    end_s = time.monotonic() + deadline_s
    while not file.exists():
        assert process.poll() is None, "the run ended before it began"
        assert time.monotonic() < end_s, f"{file} is not there after {deadline_s:g} s"
        time.sleep(0.2)


def worker_processes() -> list[psutil.Process]:
    """Of the run on this test's cluster, whose nodes bear its mark."""
    return running("ray::RolloutWorker")


def without_data(server: Server, deadline_s: float) -> dict[str, str]:
    """The expressions that have returned nothing in all that time; each needs data once (nothing is leased
    for a moment, say)."""
    waiting = {
        place: each for place, each in expressions().items() if not any(name in each for name in NOT_HERE)
    }
    end_s = time.monotonic() + deadline_s
    while waiting and time.monotonic() < end_s:
        waiting = {place: each for place, each in waiting.items() if not server.query(each)}
        time.sleep(1)
    return waiting


def look_over(server: Server, run: str, runs: Path, environment: dict[str, str]) -> None:
    """`status` shows the port that was free; names and types are as promtool wants them; values are what
    they are called."""
    status = subprocess.run(
        dynalign("status", run, "--runs", str(runs)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (target,) = json.loads((runs / f"{run}.prometheus.json").read_text())
    (address,) = target["targets"]
    assert f"metrics: http://{address}/metrics\n" in status.stdout
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read()
    linted = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=30
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, b"")
    for never in (
        "dynalign_learner_wait_fraction > 1 or dynalign_learner_wait_fraction < 0",
        "dynalign_rollout_idle_fraction > 1 or dynalign_rollout_idle_fraction < 0",
        "dynalign_last_step_timestamp_seconds > time() "
        "or dynalign_last_step_timestamp_seconds < dynalign_run_started_timestamp_seconds",
        "dynalign_time_to_first_step_seconds > time() - dynalign_run_started_timestamp_seconds",
        "dynalign_step < dynalign_checkpoint_step or dynalign_step < dynalign_policy_version",
        "dynalign_group_staleness_sum > dynalign_staleness_bound * dynalign_group_staleness_count",
        "dynalign_gpu_seconds_per_trained_group != 0",
        "dynalign_weight_bytes <= 0",
    ):
        assert server.query(never) == [], never


def scale_and_kill(server: Server, run: str, runs: Path, environment: dict[str, str]) -> None:
    """The pool's decision and a worker's death are counted, with reason and cause, and are told in
    events.jsonl too."""
    assert (
        subprocess.run(
            dynalign("scale", run, "2", "--runs", str(runs)), env=environment, timeout=60
        ).returncode
        == 0
    )
    server.until('dynalign_autosize_decisions_total{direction="up",reason="dynalign scale"} == 1', 60)
    worker_processes()[0].kill()
    server.until('dynalign_restarts_total{kind="worker",cause="died"} == 1', 60)
    server.until("sum(dynalign_restarts_total) == 1", 60)
    told = [json.loads(line) for line in (runs / run / "events.jsonl").read_text().splitlines()]
    assert [event["detail"] for event in told if event["what"] == "scaled"] == ["1 -> 2: dynalign scale"]
    assert [event["cause"] for event in told if event["what"] == "died"] == ["died"]


def test_every_expression_and_rule_is_answered_by_a_run_on_a_cluster_and_its_end_leaves_no_target(
    tmp_path: Path,
) -> None:
    tool("prometheus")
    model, runs = tiny_chat_model(tmp_path / "model"), tmp_path / "runs"
    target = runs / "tiny.prometheus.json"
    with (
        scripted_endpoint(act=judging) as endpoint,
        cluster(cpus=5, **{MARK: ENVIRONMENT[MARK]}) as ray,
        (tmp_path / "run.log").open("w") as log,
    ):
        beside = {"address": endpoint.address, "model": MODEL, "input_price": 1.0}
        judge = SETTINGS["judge"] | PROBES | {"endpoints": {"beside": beside}}
        settings = SETTINGS | EVERYTHING | {"model": str(model), "judge": judge}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
        agents = (
            Path(ray.environment["HOME"]) / "ray" / "session_latest" / "prom_metrics_service_discovery.json"
        )
        command = dynalign(
            "train",
            str(tmp_path / "tiny.yaml"),
            f"runs={runs}",
            f"checkpoint.mirror=file://{tmp_path / 'mirror'}",
        )
        run = subprocess.Popen(command, env=ray.environment, stdout=log, stderr=log)
        try:
            wait_for(target, run, 120)
            with prometheus(tmp_path, runs / "*.prometheus.json", agents) as server:
                missing = without_data(server, DATA_DEADLINE_S)
                assert missing == {}, (tmp_path / "run.log").read_text()[-2000:]
                loaded = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
                assert sorted(rule["name"] for rule in loaded) == sorted(rule["alert"] for rule in rules())
                assert {rule["health"] for rule in loaded} == {"ok"}
                assert not server.query("dynalign_capability_change")
                look_over(server, "tiny", runs, ray.environment)
                scale_and_kill(server, "tiny", runs, ray.environment)
                firing = {
                    sample["metric"]["alertname"] for sample in server.query('ALERTS{alertstate="firing"}')
                }
                assert not firing & {
                    rule["alert"] for rule in rules() if rule["labels"]["severity"] == "critical"
                } - {"DynalignDiskNearlyFull"}
                assert "DynalignWorkerFlapping" not in firing
                run.send_signal(signal.SIGINT)
                assert run.wait(timeout=90) == 130, (tmp_path / "run.log").read_text()
                assert not target.exists()
                assert server.query('last_over_time(dynalign_run_state{state="interrupted"}[5m]) == 1')
        finally:
            run.kill()
            run.wait(timeout=30)
