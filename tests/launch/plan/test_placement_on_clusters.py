"""Running clusters, up to 64 nodes of 8 GPUs: who is where, what is refused, what new nodes change."""

import pytest

from dynalign.configs.load import load_run
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.plan.nodes import UNKNOWN, Cluster, Node, from_ray
from dynalign.launch.plan.plan import Bundle, plan
from dynalign.launch.plan.refusals import cluster_refusals, refusals
from dynalign.launch.plan.text import placement_lines, plan_lines
from tests.launch.models.test_shape import SMOL
from tests.launch.plan.test_placement import GB, GPU, H100, QWEN_8B, cluster, here, placements, settings


def test_64_nodes_of_8_are_filled_to_the_last_gpu() -> None:
    """256 ranks on 32 nodes, 64 engines of 4 GPUs on the other 32: 512 GPUs.

    ZeRO 3 divides 8.19 G x 20 B by 256: 0.64 GB a rank.
    """
    big = cluster(*(8,) * 64)
    run = ["rollout.workers=64", "rollout.tensor_parallel=4", "learner.ranks=256", "placement.mode=separate"]
    result = plan(load_run("cluster", run).settings, QWEN_8B, big, context_tokens=4000)
    assert refusals(result) == []
    lines = placement_lines(result)
    assert len(lines) == 64
    assert lines[0] == "n0: learner-0 to 7 on GPU 0 to 7"
    assert lines[31] == "n31: learner-248 to 255 on GPU 0 to 7"
    assert lines[32] == "n32: rollout-0 to 1 on GPU 0 to 7"
    assert lines[63] == "n63: rollout-62 to 63 on GPU 0 to 7"
    states = {part.name: part.size_bytes for part in result.learner.memory}
    assert QWEN_8B.parameters == 8_190_735_360
    assert [states[name] for name in ("weights", "gradients", "optimizer")] == [
        8_190_735_360 * each // 256 for each in (2, 6, 12)
    ]
    assert result.more_engines == 0
    assert set(result.bundles) == {Bundle((f"learner-{rank}",), 1, 1) for rank in range(256)}


def test_one_gpu_more_than_there_are_is_refused_with_both_numbers() -> None:
    run = ["rollout.workers=64", "rollout.tensor_parallel=4", "learner.ranks=257"]
    (mistake,) = refusals(plan(load_run("cluster", run).settings, QWEN_8B, cluster(*(8,) * 64), 4000))
    assert (
        "rollout.tensor_parallel=4, placement.mode=separate take 513 GPUs, and the cluster's 64 nodes have "
        "512" in mistake.rule
    )
    assert mistake.remedy.startswith("add nodes")


def test_a_pool_needs_its_least_and_says_how_many_more_find_a_place() -> None:
    """Two nodes of eight: 8 ranks and 2 engines take 10 GPUs; of the 30 engines that may join, 6 find one."""
    run = load_run("cluster", ["rollout.workers={min: 2, max: 32}"]).settings
    result = plan(run, QWEN_8B, cluster(8, 8), 4000)
    assert refusals(result) == []
    assert (result.rollout.count, result.more_engines) == (2, 6)
    (line,) = (line for line in plan_lines(result) if line.startswith("may join"))
    assert "30  workers, up to rollout.workers.max=32, 6 of them have a place now" in line


ROWS = [
    {
        "Alive": True,
        "NodeManagerHostname": "gpu-0",
        "NodeManagerAddress": "10.0.0.1",
        "Resources": {
            "CPU": 4.0,
            "GPU": 2.0,
            "memory": 64e9,
            "object_store_memory": 20e9,
            "node:10.0.0.1": 1.0,
        },
    },
    {
        "Alive": False,
        "NodeManagerHostname": "gone",
        "NodeManagerAddress": "10.0.0.2",
        "Resources": {"CPU": 96.0, "GPU": 8.0},
    },
    {"Alive": True, "NodeManagerHostname": "", "NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 2.0}},
]


def test_a_running_cluster_is_read_from_ray_s_list_of_nodes() -> None:
    assert from_ray(ROWS) == Cluster(
        (
            Node("gpu-0", (0, 1, 2, 3), 64 * GB, (0, 0), 20 * GB),
            Node("10.0.0.3", (0, 1), 0, (), 0),
        )
    )


def test_a_plan_made_before_the_cluster_was_known_is_held_against_it_as_it_grows() -> None:
    """Autoscaling: refused with both numbers until the nodes are there; then it has places.

    Nothing is refused of nodes without actors.
    """
    early = plan(settings(f"{GPU} rollout.workers=2 learner.ranks=2"), SMOL, UNKNOWN, 1200)
    assert refusals(early) == []
    assert placements(early) == ("nowhere nowhere", "nowhere nowhere")
    (mistake,) = cluster_refusals(early, from_ray(ROWS))
    assert "take 4 GPUs, and the cluster's 2 nodes have 2" in mistake.rule
    grown = from_ray([*ROWS, ROWS[0] | {"NodeManagerHostname": "gpu-1"}])
    assert cluster_refusals(early, grown) == []
    assert placement_lines(early.on(grown)) == [
        "gpu-0: learner-0 to 1 on GPU 0 to 1",
        "gpu-1: rollout-0 to 1 on GPU 0 to 1",
    ]


def test_a_node_with_too_small_a_store_or_memory_is_named() -> None:
    """The small model's two versions take 0.54 GB; learner and engine together over 5 GB of a node."""
    run = settings("placement.device=cpu")
    (store,) = refusals(plan(run, SMOL, Cluster((Node("a", (0, 1), 64 * GB, (), GB // 2),)), 1200))
    assert store.place == "object store of node a"
    assert store.remedy == f"start its Ray with --object-store-memory={134_515_008 * 2 * 2}, or more"
    (memory,) = refusals(plan(run, SMOL, Cluster((Node("a", (0, 1), 5 * GB, (), GB),)), 1200))
    assert (memory.place, memory.value) == ("memory of node a", "5.0 GB free")


@pytest.mark.parametrize(
    ("name", "on"),
    [("single-gpu", here(26, 200, 1)), ("paper", here(26, 200, 1)), ("cluster", cluster(8, 8))],
)
def test_the_shipped_gpu_runs_fit_gpus_of_80_gb(name: str, on: Cluster) -> None:
    run = load_run(name).settings
    shape = known_shape(run.model)
    assert shape is not None
    result = plan(run, shape, on, context_tokens=12_000)
    assert refusals(result) == []
    assert all(20 * GB < actor.bytes_on("gpu") < H100 for actor in (result.rollout, result.learner))


def test_every_engine_on_a_node_lands_a_version_of_its_own_there() -> None:
    """The cluster's second node holds 8 engines: 8 x 16.4 GB in shared memory, and nothing of the learner."""
    result = plan(load_run("cluster").settings, QWEN_8B, cluster(8, 8), context_tokens=4000)
    (landed,) = (part for part in result.rollout.memory if part.name == "version landed")
    assert landed.size_bytes == 8_190_735_360 * 2
    assert result.host_bytes(1) == 8 * result.rollout.bytes_on("host") + sum(
        part.size_bytes for part in result.common
    )
