"""The manifests as `kubectl kustomize` builds them, and the parts of them that the tests look at."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from tests.worlds.product import ROOT

Manifest = dict[str, Any]

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
KINDS = ("overlays", "standing")
BUILDS = sorted(
    path.parent.relative_to(K8S).as_posix()
    for kind in KINDS
    for path in K8S.glob(f"{kind}/*/kustomization.yaml")
)

SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@cache
def build(name: str) -> tuple[Manifest, ...]:
    """Every object of `overlays/…` or `standing/…`. Skips the test where kubectl is missing."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine, and nothing else builds these manifests")
    ended = subprocess.run(
        ["kubectl", "kustomize", str(K8S / name)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return tuple(yaml.load_all(ended.stdout, Loader=yaml.CSafeLoader))


def of_kind(name: str, kind: str) -> list[Manifest]:
    return [manifest for manifest in build(name) if manifest["kind"] == kind]


def cluster(name: str) -> Manifest:
    """The spec of the one Ray cluster: a RayCluster's own, or that of the RayJob."""
    (owner,) = (manifest for manifest in build(name) if manifest["kind"] in ("RayCluster", "RayJob"))
    return owner["spec"] if owner["kind"] == "RayCluster" else owner["spec"]["rayClusterSpec"]


@dataclass(frozen=True)
class Pod:
    """The pods that KubeRay makes of one template."""

    group: str
    """`head`, `submitter`, or the worker group's name."""

    minimum: int
    """Pods that are there from the start."""

    maximum: int
    """Pods that the autoscaler may start."""

    ray_start: Manifest
    """Arguments of `ray start`."""

    template: Manifest

    @property
    def spec(self) -> Manifest:
        return self.template["spec"]

    @property
    def labels(self) -> Manifest:
        return self.template["metadata"]["labels"]

    @property
    def container(self) -> Manifest:
        (only,) = self.spec["containers"]
        return only

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def gpus(self) -> int:
        return int(self.container["resources"]["limits"].get("nvidia.com/gpu", 0))

    def volume_at(self, path: str) -> Manifest:
        """The volume that holds `path`: that of the longest mount above it."""
        mounts = [
            mount
            for mount in self.container["volumeMounts"]
            if f"{path}/".startswith(f"{mount['mountPath']}/")
        ]
        name = max(mounts, key=lambda mount: len(mount["mountPath"]))["name"]
        return next(volume for volume in self.spec["volumes"] if volume["name"] == name)


def pods(name: str) -> Iterator[Pod]:
    for manifest in of_kind(name, "RayJob"):
        yield Pod("submitter", 1, 1, {}, manifest["spec"]["submitterPodTemplate"])
    spec = cluster(name)
    yield Pod("head", 1, 1, spec["headGroupSpec"]["rayStartParams"], spec["headGroupSpec"]["template"])
    for group in spec["workerGroupSpecs"]:
        yield Pod(
            group["groupName"],
            group["minReplicas"],
            group["maxReplicas"],
            group["rayStartParams"],
            group["template"],
        )


def pod(name: str, group: str) -> Pod:
    return next(each for each in pods(name) if each.group == group)


def workers(name: str) -> list[Pod]:
    return [each for each in pods(name) if each.group not in ("head", "submitter")]


def command(overlay: str) -> list[str]:
    """The words of the job's entry point."""
    (job,) = of_kind(f"overlays/{overlay}", "RayJob")
    return shlex.split(job["spec"]["entrypoint"])


def settings(overlay: str) -> RunSettings:
    """The run that the overlay trains, as `dynalign train` reads it."""
    _, _, config, *overrides = command(overlay)
    return load_run(config, overrides).settings


def size_bytes(quantity: str) -> int:
    return int(quantity[:-2]) * SIZES[quantity[-2:]]
