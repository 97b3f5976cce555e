"""The manifests agree with the code: commands, settings, ports, storage, sizes and times."""

import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from dynalign.launch.cli import dynalign
from dynalign.launch.models.fetch import SOURCES
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import shape_of
from dynalign.launch.plan.nodes import Cluster, Node
from dynalign.launch.plan.plan import plan
from dynalign.launch.plan.refusals import refusals
from dynalign.launch.preflight import ESTIMATE, run_texts
from dynalign.rollout.judges.base import context_tokens
from tests.worlds.k8s_manifests import (
    BUILDS,
    KINDS,
    OVERLAYS,
    Manifest,
    cluster,
    command,
    of_kind,
    pod,
    pods,
    settings,
    size_bytes,
    workers,
)
from tests.worlds.product import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FOR_RAY_S = 30
"""Seconds of a pod's grace period that Ray needs to end, at least."""

H100_BYTES = 81_559 * 2**20
"""Memory of an H100 of 80 GB, as nvidia-smi reports it."""

SMOLLM2 = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""config.json of the model in the CPU image."""

KUBERAY_LABELS = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
"""Labels that KubeRay gives to the pod of the head. A `submitter` pod has none of them."""


def test_there_is_an_overlay_for_a_laptop_for_one_gpu_and_for_a_cluster_each_with_and_without_its_run() -> (
    None
):
    overlays = ["cluster", "cpu-dev", "single-h100"]
    assert overlays == OVERLAYS
    assert [f"{kind}/{overlay}" for kind in KINDS for overlay in overlays] == BUILDS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_job_is_a_command_of_dynalign_whose_settings_are_accepted(overlay: str) -> None:
    program, subcommand, *arguments = command(overlay)
    assert program in PROJECT["scripts"]
    dynalign.commands[subcommand].make_context(subcommand, list(arguments))
    assert settings(overlay).resume == "auto", (
        "KubeRay submits a failed job again, which has to continue the run"
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_finds_the_port_that_the_run_listens_on(overlay: str) -> None:
    metrics = settings(overlay).metrics
    assert metrics.host == "0.0.0.0"
    assert metrics.port == pod(f"overlays/{overlay}", "head").ports["dynalign"]


@pytest.mark.parametrize("name", BUILDS)
def test_every_scraped_port_is_a_port_of_the_pods_and_open_to_prometheus_and_no_other_is(name: str) -> None:
    by_name = {monitor["metadata"]["name"]: monitor for monitor in of_kind(name, "PodMonitor")}
    scraped = set()
    for monitor, scraped_pods in (("head", [pod(name, "head")]), ("workers", workers(name))):
        for endpoint in by_name[monitor]["spec"]["podMetricsEndpoints"]:
            for each in scraped_pods:
                assert endpoint["port"] in each.ports, f"{each.group} has no port {endpoint['port']}"
                assert endpoint.get("path", "/metrics") == "/metrics", (
                    "where Ray's agents and dynalign's endpoint answer"
                )
                scraped.add(each.ports[endpoint["port"]])
    (scrape,) = (
        policy for policy in of_kind(name, "NetworkPolicy") if policy["metadata"]["name"] == "scrape"
    )
    (rule,) = scrape["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == scraped


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_run_folders_and_the_models_from_the_hub_lie_on_the_volume_that_every_pod_of_ray_mounts(
    overlay: str,
) -> None:
    name = f"overlays/{overlay}"
    (claim,) = of_kind(name, "PersistentVolumeClaim")
    for each in pods(name):
        if each.group == "submitter":
            continue
        hub = next(variable["value"] for variable in each.container["env"] if variable["name"] == "HF_HOME")
        for path in (settings(overlay).runs, hub):
            assert each.volume_at(path)["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}


def test_several_nodes_share_the_volume() -> None:
    (claim,) = of_kind("overlays/cluster", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_laptops_model_is_where_its_image_has_it() -> None:
    fetched = "smollm2-135m-instruct"
    dockerfile = (ROOT / "k8s" / "docker" / "cpu.Dockerfile").read_text()
    assert fetched in SOURCES
    assert f"XDG_CACHE_HOME=/opt dynalign model fetch {fetched}" in dockerfile
    assert settings("cpu-dev").model == f"/opt/dynalign/models/{fetched}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_largest_cluster_has_room_for_the_run(overlay: str) -> None:
    run, groups = settings(overlay), {each.group: each for each in workers(f"overlays/{overlay}")}
    if run.placement.mode == "shared":
        (shared,) = groups.values()
        assert shared.maximum * shared.gpus >= 1
    elif run.placement.device == "gpu":
        assert groups["learner"].maximum * groups["learner"].gpus >= run.learner.ranks
        assert groups["rollout"].gpus >= run.rollout.tensor_parallel, "an engine is on one node"
        assert (
            groups["rollout"].maximum * groups["rollout"].gpus
            >= run.rollout.workers.max * run.rollout.tensor_parallel
        )
    else:
        cpus = {
            group: each.maximum * int(each.container["resources"]["limits"]["cpu"])
            for group, each in groups.items()
        }
        assert cpus["learner"] >= run.learner.ranks * run.learner.threads
        assert cpus["rollout"] >= run.rollout.workers.max * run.rollout.engine_threads


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_is_reclaimed_has_time_for_the_checkpoint(overlay: str) -> None:
    stop_s, name = settings(overlay).deadlines.stop_s, f"overlays/{overlay}"
    head = pod(name, "head")
    wait_s = next(
        int(each["value"]) for each in head.container["env"] if each["name"] == "RAY_JOB_STOP_WAIT_TIME_S"
    )
    assert wait_s >= stop_s
    for each in (head, *(worker for worker in workers(name) if worker.labels["dynalign/role"] == "learner")):
        assert each.spec["terminationGracePeriodSeconds"] >= stop_s + FOR_RAY_S, (
            f"{each.group} is killed before the checkpoint is whole"
        )
        assert "preStop" in each.container["lifecycle"]


SLOW_TO_END = """
import signal, sys, time
def checkpoint_and_end(*_):
    time.sleep(1.5)
    open("checkpoint", "w").close()
    sys.exit(130)
signal.signal(signal.SIGTERM, checkpoint_and_end)
print("runs", flush=True)
time.sleep(60)
"""
"""A driver that takes a while to write its checkpoint."""


def test_a_reclaimed_head_tells_the_driver_and_waits_for_it(tmp_path: Path) -> None:
    script = pod("overlays/cluster", "head").container["lifecycle"]["preStop"]["exec"]["command"]
    program = tmp_path / "dynalign"
    program.write_text(SLOW_TO_END)
    driver = subprocess.Popen(
        [sys.executable, str(program), "train", "cluster"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "runs\n"
    # Only this test's process gets the signal, and no other run on this machine.
    stop = subprocess.Popen([*script[:-1], script[-1].replace("/proc/[0-9]*/", f"/proc/{driver.pid}/")])
    assert driver.wait(timeout=20) == 130
    assert (tmp_path / "checkpoint").exists()
    assert stop.wait(timeout=20) == 0


def test_a_reclaimed_head_without_a_run_ends_at_once(tmp_path: Path) -> None:
    script = pod("overlays/cluster", "head").container["lifecycle"]["preStop"]["exec"]["command"]
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dynalign train"])
    started_s = time.monotonic()
    try:
        subprocess.run(
            [*script[:-1], script[-1].replace("/proc/[0-9]*/", f"/proc/{idle.pid}/")], check=True, timeout=20
        )
        assert idle.poll() is None, "a process that only mentions the command is none"
        assert time.monotonic() - started_s < 10
    finally:
        idle.send_signal(signal.SIGKILL)
        idle.wait(timeout=10)


@pytest.mark.parametrize("name", BUILDS)
def test_the_object_store_fits_shared_memory_and_that_fits_the_pod(name: str) -> None:
    for each in pods(name):
        if each.group == "submitter":
            continue
        shared_bytes = size_bytes(each.volume_at("/dev/shm")["emptyDir"]["sizeLimit"])
        assert each.volume_at("/dev/shm")["emptyDir"]["medium"] == "Memory"
        assert (
            int(each.ray_start["object-store-memory"])
            < shared_bytes
            < size_bytes(each.container["resources"]["limits"]["memory"])
        )


def nodes_of(overlay: str) -> Cluster:
    """The smallest cluster of the overlay, as the plan sees it. The object store's memory is not free."""
    nodes = []
    for each in workers(f"overlays/{overlay}"):
        limits = each.container["resources"]["limits"]
        store_bytes = int(each.ray_start["object-store-memory"])
        free_bytes = size_bytes(limits["memory"]) - store_bytes
        node = Node(
            each.group, tuple(range(int(limits["cpu"]))), free_bytes, (H100_BYTES,) * each.gpus, store_bytes
        )
        nodes += [node] * each.minimum
    return Cluster(tuple(nodes))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_that_are_there_from_the_start_and_the_volume_hold_what_the_plan_of_the_run_adds_up_to(
    overlay: str,
) -> None:
    run = settings(overlay)
    shape = known_shape(run.model) or shape_of(SMOLLM2)
    result = plan(run, shape, nodes_of(overlay), context_tokens(ESTIMATE, run_texts(run), run))
    assert [str(mistake) for mistake in refusals(result)] == []
    (claim,) = of_kind(f"overlays/{overlay}", "PersistentVolumeClaim")
    assert sum(part.size_bytes for part in result.disk) < size_bytes(
        claim["spec"]["resources"]["requests"]["storage"]
    )


def test_a_pod_that_is_too_small_would_be_noticed() -> None:
    run, cluster_there = settings("cluster"), nodes_of("cluster")
    shape = known_shape(run.model)
    assert shape is not None
    small = Cluster(
        tuple(
            replace(node, memory_bytes=16 * 2**30, object_store_bytes=2**30) for node in cluster_there.nodes
        )
    )
    assert len(refusals(plan(run, shape, small, 2000))) > 1


@pytest.mark.parametrize("name", BUILDS)
def test_images_and_ray_have_the_versions_of_this_checkout(name: str) -> None:
    ray_version = next(need.split("==")[1] for need in PROJECT["dependencies"] if need.startswith("ray["))
    assert cluster(name)["rayVersion"] == ray_version
    for each in pods(name):
        image, _, tag = each.container["image"].partition(":")
        assert (ROOT / "k8s" / "docker" / f"{image.removeprefix('dynalign-')}.Dockerfile").is_file()
        assert tag == PROJECT["version"]


@pytest.mark.parametrize("name", BUILDS)
def test_every_selector_finds_pods(name: str) -> None:
    carried = [each.labels for each in pods(name)] + [KUBERAY_LABELS, {"ray.io/node-type": "worker"}]
    kinds = ("PodDisruptionBudget", "PodMonitor")
    selectors: list[Manifest] = [
        each["spec"]["selector"]["matchLabels"] for kind in kinds for each in of_kind(name, kind)
    ]
    if name.startswith("overlays/"):  # without a job there is no pod that submits one
        selectors += [
            each["spec"]["podSelector"].get("matchLabels", {}) for each in of_kind(name, "NetworkPolicy")
        ]
    missing = [
        selector
        for selector in selectors
        if not any(selector.items() <= labels.items() for labels in carried)
    ]
    assert selectors
    assert missing == []


def test_a_standing_cluster_is_the_overlays_cluster_without_its_job() -> None:
    for overlay in OVERLAYS:
        assert cluster(f"standing/{overlay}") == cluster(f"overlays/{overlay}")
        assert of_kind(f"standing/{overlay}", "RayJob") == of_kind(f"overlays/{overlay}", "RayCluster") == []


def test_the_autoscaler_scales_learner_and_rollout_within_bounds_of_their_own() -> None:
    spec = cluster("overlays/cluster")
    assert spec["enableInTreeAutoscaling"] is True
    bounds = {
        group["groupName"]: (group["minReplicas"], group["maxReplicas"]) for group in spec["workerGroupSpecs"]
    }
    limits = settings("cluster").rollout.workers
    assert bounds == {"learner": (1, 1), "rollout": (limits.min, limits.max)}
