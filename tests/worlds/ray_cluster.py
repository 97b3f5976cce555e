"""A Ray cluster as an operator starts it, with token authentication.

It has processes and ports of its own, and leaves nothing in the home folder.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that runs."""

    address: str
    """host:port of the head, for RAY_ADDRESS."""

    dashboard: str
    """URL of the dashboard, which takes jobs."""

    token: str
    """What Ray asks for."""

    environment: dict[str, str]
    """Of a shell that may use the cluster."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextmanager
def node(environment: dict[str, str], ready: Path, *arguments: str) -> Iterator[None]:
    """One node, run by `ray start --block`: when that process ends, the node's other processes end too.

    ready: file for the node's output.
    """
    agent, grpc, runtime, client = free_ports(4)
    ports = [
        f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={grpc}",
        f"--runtime-env-agent-port={runtime}",
    ]
    if "--head" in arguments:
        ports.append(f"--ray-client-server-port={client}")
    small = [
        "--object-store-memory=100000000",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--disable-usage-stats",
        "--block",
    ]
    with ready.open("w") as log:
        process = subprocess.Popen(
            [RAY, "start", *arguments, *ports, *small], env=environment, stdout=log, stderr=log
        )
        try:
            end_s = time.monotonic() + START_DEADLINE_S
            while "Ray runtime started" not in ready.read_text():
                assert process.poll() is None, ready.read_text()
                assert time.monotonic() < end_s, ready.read_text()
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def cluster(nodes: int = 1, cpus: int = 2, **variables: str) -> Iterator[Cluster]:
    """`nodes` nodes of `cpus` cores each on this machine, with this process's environment and `variables`."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short, since the paths of Ray's sockets have a limit
    token = secrets.token_hex(16)
    (folder / "token").write_text(token)
    (dashboard,) = free_ports(1)
    own = {"HOME": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    own["PATH"] = f"{Path(RAY).parent}:{os.environ['PATH']}"
    environment = (
        {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own | variables
    )
    first = [
        "--head",
        "--port=0",
        f"--dashboard-port={dashboard}",
        f"--temp-dir={folder / 'ray'}",
        f"--num-cpus={cpus}",
    ]
    try:
        with ExitStack() as started:
            started.enter_context(node(environment, folder / "head.log", *first))
            address = (folder / "ray" / "ray_current_cluster").read_text().strip()
            for number in range(1, nodes):
                joined = [f"--address={address}", f"--num-cpus={cpus}"]
                started.enter_context(node(environment, folder / f"node-{number}.log", *joined))
            yield Cluster(
                address, f"http://127.0.0.1:{dashboard}", token, environment | {"RAY_ADDRESS": address}
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
