"""A table of machines and clusters: who is where, what is reserved, how weights travel, what is refused."""

from dataclasses import dataclass

import pytest

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import ModelShape
from dynalign.launch.plan.nodes import Cluster, Node
from dynalign.launch.plan.plan import Bundle, PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals
from dynalign.launch.plan.text import plan_lines
from tests.launch.models.test_shape import SMOL

GB = 10**9
H100 = 80 * GB


def here(cores: int, memory_gb: int, gpus: int = 0, gpu_bytes: int = H100) -> Cluster:
    return Cluster(
        (Node("this machine", tuple(range(cores)), memory_gb * GB, (gpu_bytes,) * gpus),), started_here=True
    )


def cluster(
    *gpus: int, cores: int = 96, memory_gb: int = 2000, gpu_bytes: int = H100, store_gb: int = 200
) -> Cluster:
    """A running one, of nodes n0, n1, … with so many GPUs."""
    return Cluster(
        tuple(
            Node(f"n{index}", tuple(range(cores)), memory_gb * GB, (gpu_bytes,) * each, store_gb * GB)
            for index, each in enumerate(gpus)
        )
    )


def placements(result: PlacementPlan) -> tuple[str, str]:
    """Engines and ranks as `node:gpu,gpu`, or `node/core,core`."""

    def one(placement: object) -> str:
        node, cores, gpus = vars(placement).values()
        return (
            "nowhere"
            if node is None
            else f"{node}:{','.join(map(str, gpus))}"
            if gpus
            else f"{node}/{','.join(map(str, cores))}"
        )

    return " ".join(map(one, result.rollout.placements)), " ".join(map(one, result.learner.placements))


@dataclass(frozen=True)
class Row:
    """One case, and what is expected of its plan."""

    on: Cluster
    """The machine or cluster."""
    overrides: str
    """Settings beside quickstart's."""
    engines: str
    """Where engines are, in the form of `placements`."""
    ranks: str
    """Where learner ranks are."""
    transport: str
    """The transport of weights."""
    refused: tuple[str, ...] = ()
    """The place of each mistake."""
    shape: ModelShape = SMOL
    """The model."""


QWEN_8B = known_shape("Qwen/Qwen3-8B")
GPT_OSS = known_shape("openai/gpt-oss-20b")
assert QWEN_8B is not None
assert GPT_OSS is not None
GPU = "placement.device=gpu"
IN_TURN = f"{GPU} placement.mode=shared algorithm.max_staleness=0"

TABLE = {
    "two cores": Row(here(2, 16), "", "0/0", "0/1", "shared_memory"),
    "two cores, too little memory": Row(here(2, 4), "", "0/0", "0/1", "shared_memory", ("memory",)),
    "two cores, three workers": Row(here(2, 32), "rollout.workers=3", "0/0 0/1 0/0", "0/1", "shared_memory"),
    "two cores, an explicit transport between GPUs": Row(
        here(2, 16), "weights.transport=nccl", "0/0", "0/1", "nccl", ("weights.transport",)
    ),
    "a running cluster of two nodes without GPUs": Row(
        cluster(0, 0, cores=2), "rollout.workers=3", "0/ 1/ 1/", "0/", "object_store"
    ),
    "a running cluster with a core too few": Row(
        cluster(0, 0, cores=2),
        "rollout.workers=4",
        "0/ 0/ 1/ 1/",
        "nowhere",
        "object_store",
        ("placement.device",),
    ),
    "a machine without a GPU": Row(here(8, 64), GPU, "nowhere", "nowhere", "nccl", ("placement.device",)),
    "one GPU in turn": Row(here(8, 64, 1), IN_TURN, "0:0", "0:0", "ipc"),
    "one GPU in turn, and an explicit transport that needs two": Row(
        here(8, 64, 1), f"{IN_TURN} weights.transport=nccl", "0:0", "0:0", "nccl", ("weights.transport",)
    ),
    "one GPU split by memory": Row(here(8, 64, 1), GPU, "0:0", "0:0", "ipc"),
    "one GPU of a running cluster, split": Row(cluster(1), GPU, "0:0", "0:0", "ipc"),
    "one small GPU split by memory": Row(
        here(8, 64, 1, 6 * GB), GPU, "0:0", "0:0", "object_store", ("GPU memory of one learner actor",)
    ),
    "one GPU split by memory, with no room for a version of its own": Row(
        here(8, 64, 1, 25 * GB // 2), GPU, "0:0", "0:0", "object_store"
    ),
    "the same, and an explicit transport": Row(
        here(8, 64, 1, 25 * GB // 2),
        f"{GPU} weights.transport=ipc",
        "0:0",
        "0:0",
        "ipc",
        ("GPU memory of one learner actor",),
    ),
    "two GPUs, and an explicit way around them": Row(
        here(8, 64, 2), f"{GPU} weights.transport=object_store", "0:1", "0:0", "object_store"
    ),
    "two GPUs, whole weights of a run that trains adapters": Row(
        here(8, 64, 2), f"{GPU} learner.lora={{}}", "0:1", "0:0", "nccl"
    ),
    "two GPUs, adapters alone": Row(
        here(8, 64, 2), f"{GPU} learner.lora={{}} weights.content=adapter", "0:1", "0:0", "object_store"
    ),
    "two GPUs": Row(here(8, 64, 2), GPU, "0:1", "0:0", "nccl"),
    "two GPUs, and an explicit transport on one": Row(
        here(8, 64, 2), f"{GPU} weights.transport=ipc", "0:1", "0:0", "ipc", ("weights.transport",)
    ),
    "one node of eight, engines of three GPUs": Row(
        here(96, 500, 8),
        f"{GPU} rollout.tensor_parallel=3 rollout.workers=2 learner.ranks=2",
        "0:2,3,4 0:5,6,7",
        "0:0 0:1",
        "nccl",
    ),
    "one node of four, pairs in turn": Row(
        here(96, 500, 4),
        f"{IN_TURN} rollout.workers=4 learner.ranks=4",
        "0:0 0:1 0:2 0:3",
        "0:0 0:1 0:2 0:3",
        "object_store",
    ),
    "one node of eight for nine": Row(
        here(96, 500, 8),
        f"{GPU} rollout.workers=5 learner.ranks=4",
        "0:3 0:4 0:5 0:6 0:7",
        "0:0 0:1 0:2 nowhere",
        "nccl",
        ("placement.device",),
    ),
    "the large piece goes where it fits": Row(
        cluster(1, 3, 1), f"{GPU} rollout.tensor_parallel=3 learner.ranks=2", "1:0,1,2", "0:0 2:0", "nccl"
    ),
    "an engine larger than any node": Row(
        cluster(6, 6),
        f"{GPU} rollout.tensor_parallel=8",
        "nowhere",
        "0:0",
        "object_store",
        ("rollout.tensor_parallel",),
        QWEN_8B,
    ),
    "an engine as large as a node, and a learner too large without partitions": Row(
        cluster(8, 8),
        f"{GPU} rollout.tensor_parallel=8 rollout.workers=1 learner.ranks=8 rollout.kv_cache_gib=8",
        "1:0,1,2,3,4,5,6,7",
        "0:0 0:1 0:2 0:3 0:4 0:5 0:6 0:7",
        "object_store",
        ("GPU memory of one learner actor",),
        QWEN_8B,
    ),
    "GPUs whose memory Ray does not tell": Row(
        cluster(2, gpu_bytes=0), f"{GPU} rollout.kv_cache_gib=500", "0:1", "0:0", "nccl"
    ),
    "adapters alone": Row(
        here(26, 200, 1),
        f"{IN_TURN} learner.lora={{}} weights.content=adapter learner.token_budget=2048",
        "0:0",
        "0:0",
        "object_store",
        (),
        GPT_OSS,
    ),
}


def settings(overrides: str) -> RunSettings:
    return load_run("quickstart", overrides.split()).settings


@pytest.mark.parametrize("name", list(TABLE))
def test_every_row_of_the_table(name: str) -> None:
    row = TABLE[name]
    result = plan(settings(row.overrides), row.shape, row.on, context_tokens=1200)
    assert placements(result) == (row.engines, row.ranks)
    assert result.transport.name == row.transport
    assert tuple(mistake.place for mistake in refusals(result)) == row.refused
    assert len(plan_lines(result)) > 15


def test_workers_that_may_join_have_cores_of_their_own_too() -> None:
    run = settings("rollout.workers.min=1 rollout.workers.max=3")
    assert plan(run, SMOL, here(4, 64), 1200).cores == {
        "rollout-0": (0,),
        "learner-0": (1,),
        "rollout-1": (2,),
        "rollout-2": (3,),
    }


def test_a_pair_that_takes_turns_is_reserved_as_one() -> None:
    pairs = plan(
        settings(f"{IN_TURN} rollout.workers=2 learner.ranks=2 learner.threads=3"), SMOL, here(8, 64, 2), 1200
    )
    assert pairs.bundles == (
        Bundle(("learner-0", "rollout-0"), 4, 1),
        Bundle(("learner-1", "rollout-1"), 4, 1),
    )
    assert (pairs.rollout.gpu_share, pairs.learner.gpu_share) == (0.5, 0.5)
    assert plan(settings(IN_TURN), SMOL, here(8, 64, 1), 1200).bundles == ()
    assert plan(settings("learner.ranks=2"), SMOL, here(8, 64), 1200).bundles == ()


def test_the_plan_names_the_transport_with_its_reason_and_the_memory_it_takes() -> None:
    """134.5 M x 2 B of the learner's GPU; taking turns, also beside the engine, since it stays there."""
    for overrides, reason, engines_too in (
        (IN_TURN, "on the same GPU", True),
        (GPU, "on the same GPU", False),
    ):
        result = plan(settings(overrides), SMOL, here(8, 64, 1), 1200)
        staged = [
            [part.size_bytes for part in actor.memory if part.name == "version staged"]
            for actor in (result.learner, result.rollout)
        ]
        assert staged == [[134_515_008 * 2], [134_515_008 * 2] if engines_too else []]
        (line,) = (line for line in plan_lines(result) if line.startswith("weight version"))
        assert " ipc " in line
        assert reason in line
    (line,) = (
        line
        for line in plan_lines(plan(settings(GPU), SMOL, cluster(1, 1), 1200))
        if line.startswith("weight version")
    )
    assert " nccl " in line
    assert "late for a broadcast" in line
    small = plan(settings(GPU), SMOL, here(8, 64, 1, 10 * GB), 1200)
    assert small.transport.reason == "a GPU has no room for a version to be sent from there by ipc"


def test_an_object_store_transport_can_always_be_chosen() -> None:
    for overrides in ("", GPU, IN_TURN):
        chosen = plan(settings(f"{overrides} weights.transport=object_store"), SMOL, here(8, 64, 2), 1200)
        assert (chosen.transport.name, refusals(chosen)) == ("object_store", [])
