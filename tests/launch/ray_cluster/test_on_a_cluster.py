"""A real cluster of two nodes with a token: joining, `dynalign doctor`, a coordinator found by name."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import dynalign
from tests.worlds.product import ROOT
from tests.worlds.ray_cluster import STOP_DEADLINE_S, Cluster, cluster

pytestmark = pytest.mark.timeout(600)  # the first test starts the cluster


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with cluster(nodes=2, PYTHONPATH=str(ROOT)) as started:
        yield started


def shell(cluster: Cluster, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {name: value for name, value in (cluster.environment | environment).items() if value}
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)


REACH = """
from dynalign.configs.errors import UserError
from dynalign.launch.ray_cluster.connection import reach
try:
    print(reach())
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"RAY_AUTH_TOKEN": "0" * 32},
            "the cluster does not accept the token of this shell; set RAY_AUTH_TOKEN",
        ),
        (
            {"RAY_AUTH_TOKEN_PATH": "absent"},
            "RAY_AUTH_MODE = 'token': there is no token here; set RAY_AUTH_TOKEN",
        ),
        (
            {"RAY_AUTH_MODE": ""},
            "the cluster asks for a token, and this shell gives none; set RAY_AUTH_MODE=token",
        ),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "RAY_ADDRESS = '127.0.0.1:9': no head of a Ray cluster is there"),
        ({"RAY_ADDRESS": "dashboard"}, "(an HTTP server answers)"),
        ({"RAY_ADDRESS": "http://127.0.0.1:8265"}, "is the address of a dashboard, which only takes jobs"),
        ({"RAY_ADDRESS": "ray://127.0.0.1:10001"}, "is the address of a Ray client server"),
        ({"RAY_ADDRESS": "somewhere"}, "is no address"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line_within_seconds(
    two_nodes: Cluster, environment: dict[str, str], said: str
) -> None:
    if environment.get("RAY_ADDRESS") == "dashboard":
        environment = {"RAY_ADDRESS": two_nodes.dashboard.removeprefix("http://")}
    started_s = time.monotonic()
    ended = shell(two_nodes, sys.executable, "-c", REACH, **environment)
    (line,) = ended.stdout.splitlines()
    assert said in line
    assert ended.stderr == ""
    assert time.monotonic() - started_s < 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("tiny") / "model")


def doctor(cluster: Cluster, runs: Path, model: Path, *overrides: str) -> tuple[int, list[str]]:
    settings = [
        f"runs={runs}",
        f"model={model}",
        "prompts.max_tokens=1400",
        "learner.token_budget=2048",
        *overrides,
    ]
    ended = shell(cluster, *dynalign("doctor", "quickstart", *settings))
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


def test_doctor_examines_every_node_and_leaves_nothing_behind(
    two_nodes: Cluster, model: Path, tmp_path: Path
) -> None:
    code, lines = doctor(two_nodes, tmp_path / "runs", model)
    assert code == 0, lines
    assert any(
        line.startswith("ok ") and "ray 2." in line and line.endswith("on every node") for line in lines
    )
    assert "ok        the cluster asks for a token" in lines
    assert "ok        the nodes' clocks agree" in lines
    assert any(line.endswith("can be written to, and is shared") for line in lines)
    assert any(line.startswith("warning   `ray job stop` kills a job 3 s after") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_must_be_fixed_and_fails(two_nodes: Cluster, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = doctor(two_nodes, tmp_path / "file", model, f"metrics.port={port}", "rollout.workers=9")
    fix = [line for line in lines if line.startswith("must fix")]
    assert code == 1
    assert any("metrics.port=0" in line and str(port) in line for line in fix)
    assert any(
        "rollout.workers.min=9, learner.ranks=1 take 10 cores, and the cluster's 2 nodes have 4" in line
        for line in fix
    )
    assert any("is no folder" in line for line in fix)


COORDINATOR = """
import ray, sys
class Coordinator:
    def __init__(self): self.asked = []
    def status(self): return {"step": 3, "asked": self.asked}
    def control(self, what): self.asked.append(what)
ray.init(address="auto", namespace="dynalign", log_to_driver=False)
names = ("mine", "mine-ledger", "mine-rollout-0")
actors = [ray.remote(Coordinator).options(name=name, num_cpus=0).remote() for name in names]
ray.get([actor.status.remote() for actor in actors])
print("ready", flush=True)
sys.stdin.read()
"""
ASK = """
import sys
from dynalign.configs.errors import UserError
from dynalign.launch.commands.remote_control import call
try:
    print(call(sys.argv[1], *sys.argv[2:]))
except UserError as error:
    print(error)
"""


def test_a_coordinator_is_found_by_the_name_of_its_run(two_nodes: Cluster) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR],
        env=two_nodes.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        assert shell(two_nodes, sys.executable, "-c", ASK, "mine", "control", "pause").stdout == "None\n"
        assert (
            shell(two_nodes, sys.executable, "-c", ASK, "mine", "status").stdout
            == "{'step': 3, 'asked': ['pause']}\n"
        )
        unknown = shell(two_nodes, sys.executable, "-c", ASK, "yours", "status").stdout
        assert unknown == "run = 'yours': is not going on in the cluster; there are: mine\n"
    finally:
        driver.communicate(timeout=STOP_DEADLINE_S)
    assert "no run is" in shell(two_nodes, sys.executable, "-c", ASK, "mine", "status").stdout


def test_a_shell_that_knows_neither_folder_nor_cluster_is_told_to_name_one(two_nodes: Cluster) -> None:
    said = shell(two_nodes, sys.executable, "-c", ASK, "mine", "status", RAY_ADDRESS="").stdout
    assert "set --runs=FOLDER, or RAY_ADDRESS=host:port" in said
