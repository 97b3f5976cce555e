"""Runs submitted to a real cluster of two nodes with a token: to the end, stopped and resumed, refused."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from dynalign.benchmarks.chaos.audit import audit
from dynalign.launch.ray_cluster.ray_job import STOP_WAIT_VARIABLE
from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.product import ROOT
from tests.worlds.ray_cluster import RAY, Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]

SETTINGS: dict[str, Any] = {
    "prompts": {"max_tokens": 1400},
    "judge": {"kind": "function", "function": "dynalign.rollout.judges.reward_functions:short_question"},
    "rollout": {
        "workers": 2,
        "engine_threads": 2,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_completion_tokens": 24,
        "kv_cache_gib": 0.2,
    },
    "algorithm": {"max_staleness": 1},
    "learner": {"learning_rate": 1e-3, "token_budget": 2048},
    "heldout": {"prompts": 2, "every_steps": 4},
    "checkpoint": {"every_steps": 100},
}
"""Two engines of two cores each on two nodes of three: each node holds one."""
PATIENT = {"env_vars": {STOP_WAIT_VARIABLE: "150"}}
JOB_DEADLINE_S = 300.0


@dataclass(frozen=True)
class TwoNodes:
    """A cluster, a shell that may use it, a client of its jobs, and a configuration with its runs folder."""

    cluster: Cluster
    client: JobSubmissionClient
    config: Path
    runs: Path

    def shell(self, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            name: value for name, value in self.cluster.environment.items() if name != "RAY_ADDRESS"
        }
        environment["RAY_API_SERVER_ADDRESS"] = self.cluster.dashboard
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=JOB_DEADLINE_S
        )

    def submit(self, *arguments: str, runtime_env: dict[str, Any] = PATIENT, before: str = "") -> str:
        entry = f"{before}dynalign {' '.join(arguments)}"
        return str(
            self.client.submit_job(entrypoint=entry, runtime_env=runtime_env | {"working_dir": str(ROOT)})
        )

    def ended(self, job: str) -> JobStatus:
        self.wait(lambda: self.client.get_job_status(job).is_terminal(), job)
        return self.client.get_job_status(job)

    def wait(self, there: Callable[[], bool], job: str) -> None:
        until_s = time.monotonic() + JOB_DEADLINE_S
        while not there():
            assert time.monotonic() < until_s, self.client.get_job_logs(job)
            time.sleep(0.2)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    folder = tmp_path_factory.mktemp("submitted")
    model = tiny_chat_model(folder / "model")
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump(SETTINGS | {"model": str(model), "runs": str(folder / "runs")})
    )
    with cluster(nodes=2, cpus=3) as started:
        client = JobSubmissionClient(started.dashboard, headers={"Authorization": f"Bearer {started.token}"})
        yield TwoNodes(started, client, folder / "tiny.yaml", folder / "runs")


def test_a_submitted_run_trains_to_its_end_with_an_engine_on_each_node(nodes: TwoNodes) -> None:
    """Through the command that docs/operations.md gives."""
    submitted = [
        "--working-dir",
        ".",
        "--runtime-env-json",
        json.dumps(PATIENT),
        "--",
        "dynalign",
        "train",
        str(nodes.config),
    ]
    done = nodes.shell(RAY, "job", "submit", "--submission-id", "whole", *submitted, "name=whole", "steps=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: 2 of 2 steps" in done.stdout
    found = audit(nodes.runs / "whole", 1)
    assert (found.mistakes, found.steps) == ((), 2)
    listed = nodes.shell(RAY, "list", "actors", "--filter", "class_name=RolloutWorker", "--format", "json")
    assert len({actor["node_id"] for actor in json.loads(listed.stdout)}) == 2, listed.stdout + listed.stderr
    logs = nodes.shell(RAY, "job", "logs", "whole").stdout
    for actor in ("driver", "coordinator", "learner-0", "rollout-0", "rollout-1"):
        assert f"run=whole actor={actor} version=" in logs, logs
    assert "EngineCore" not in logs, "what libraries print belongs into the actors' own logs"


def test_a_submitted_job_makes_prompts_on_engines_of_the_cluster(nodes: TwoNodes) -> None:
    """The model is random and closes no answer: the set is empty."""
    out = nodes.runs.parent / "made"
    local = ("--local", str(nodes.runs.parent / "model"))
    pool = ("pool.engines=2", "pool.dtype=float32", "pool.kv_cache_gib=0.2", "pool.context_tokens=8192")
    job = nodes.submit(
        "prompts", "make", "--count", "4", "--out", str(out), *local, *pool, "attempts=1", "tries=1"
    )
    assert nodes.ended(job) == JobStatus.SUCCEEDED, nodes.client.get_job_logs(job)
    logs = nodes.client.get_job_logs(job)
    state = json.loads((out / "set.json").read_text())
    failed = sum(state["failed"].values())
    assert f"asked 4 = accepted 0 + rejected 0 + failed {failed}" in logs, logs
    assert failed == 4
    assert " answered, 0 from the journal" in logs
    assert "no item was accepted, so there is nothing to train on" in logs
    assert {line["fate"] for line in map(json.loads, (out / "items.jsonl").read_text().splitlines())} == {
        "failed"
    }


def test_what_is_uploaded_is_the_product_alone_and_what_runs(nodes: TwoNodes) -> None:
    where = "from dynalign import actors; print(actors.__path__[0])"
    job = nodes.submit("--version", before=f"python -c '{where}'; ")
    assert nodes.ended(job) == JobStatus.SUCCEEDED
    product = Path(nodes.client.get_job_logs(job).splitlines()[-2]).parent
    unpacked = product.parent
    assert unpacked.parent.name == "working_dir_files"
    assert {"actors", "configs", "launch", "learner", "rollout"} <= {path.name for path in product.iterdir()}
    there = {path.name for path in unpacked.iterdir()}
    assert {"dynalign", "pyproject.toml"} <= there
    assert not there & {"actors", ".venv", ".git", "tests", "docs", "k8s", "runs", ".mypy_cache"}
    uploaded = [file for file in unpacked.rglob("*") if file.is_file() and file.parent.name != "__pycache__"]
    assert sum(file.stat().st_size for file in uploaded) < 5_000_000


def steps(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("runtime_env", [PATIENT, {}], ids=["patient", "killed after three seconds"])
def test_a_stopped_run_that_is_submitted_again_trains_every_group_once(
    nodes: TwoNodes, runtime_env: dict[str, Any]
) -> None:
    name = "halves" if runtime_env else "killed"
    folder = nodes.runs / name
    command = [
        "train",
        str(nodes.config),
        f"name={name}",
        "rollout.engine=deterministic",
        "steps=60",
        "checkpoint.every_steps=3",
    ]
    job = nodes.submit(*command, runtime_env=runtime_env)
    nodes.wait(lambda: steps(folder) > 4, job)
    began_s = time.monotonic()
    nodes.client.stop_job(job)
    assert nodes.ended(job) == JobStatus.STOPPED
    assert time.monotonic() - began_s < 60
    logs = nodes.client.get_job_logs(job)
    if runtime_env:
        assert json.loads((folder / "summary.json").read_text())["state"] == "interrupted"
        assert "kills a job" not in logs
    else:
        assert f"""submit it with --runtime-env-json '{json.dumps(PATIENT)}'""" in logs
    again = nodes.submit(*command)
    assert nodes.ended(again) == JobStatus.SUCCEEDED, nodes.client.get_job_logs(again)
    found = audit(folder, 1)
    assert (found.mistakes, found.steps) == ((), 60)
    assert found.lineages == 2


def test_a_mistake_ends_a_job_with_its_line_and_exit_code_2(nodes: TwoNodes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        copy = "a temporary copy of the job's working directory"
        have = "and the cluster's 2 nodes have"
        waited = "and so it was for 5 s"
        said = {
            "runs=runs": f"runs = 'runs': is relative, and a Ray job runs in {copy}",
            "runs=$PWD/runs": f"lies in {copy}, which goes with the job; set runs=/absolute/path",
            "name=large rollout.workers=5 deadlines.place_s=5": f"take 11 cores, {have} 6, {waited}",
            "name=gpus placement.device=gpu deadlines.place_s=5": f"take 3 GPUs, {have} 0, {waited}",
            f"name=port metrics.port={port}": f"metrics.port = {port}: is taken on 127.0.0.1",
        }
        jobs = {nodes.submit("train", str(nodes.config), overrides): line for overrides, line in said.items()}
        for job, line in jobs.items():
            assert nodes.ended(job) == JobStatus.FAILED
            logs = nodes.client.get_job_logs(job)
            assert nodes.client.get_job_info(job).driver_exit_code == 2, logs
            assert line in logs.splitlines()[-1], logs
            if "and so it was" in line:
                assert "starting: the cluster cannot hold the plan yet" in logs
    assert not (nodes.runs / "tiny").exists()
