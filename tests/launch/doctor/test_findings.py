"""From facts to findings: a table of one fact that is wrong, and the line that says so with its remedy."""

from dataclasses import replace
from typing import Any

import pytest

from dynalign.configs.errors import Mistake
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.launch.doctor.findings import Examined, Finding, diagnose
from dynalign.launch.doctor.node_facts import NodeFacts
from dynalign.launch.plan.nodes import Cluster, Node

GB = 10**9
VERSIONS = {
    "python": "3.11.9",
    "ray": "2.60.0",
    "torch": "2.13.0",
    "vllm": "0.32.0",
    "deepspeed": "0.19.8",
    "transformers": "5.19.0",
}
WELL = NodeFacts(
    versions=VERSIONS,
    gpus=0,
    torch_gpus=None,
    model_there=True,
    port_error=None,
    open_files=65536,
    shared_memory_bytes=64 * GB,
    temporary_bytes=100 * GB,
    temporary_free_bytes=50 * GB,
    variables={"RAY_JOB_STOP_WAIT_TIME_S": "150"},
)
HOST = Node("this machine", (0, 1), 16 * GB, total_bytes=20 * GB, kill_share=0.95)
HEAD = Node("head", (0, 1), 16 * GB, (), 5 * GB)
OTHER = Node("other", (0, 1), 16 * GB, (), 5 * GB)


def facts(**changed: Any) -> NodeFacts:
    return replace(WELL, **changed)


def two_nodes(other: NodeFacts = WELL, head: NodeFacts = WELL, **changed: Any) -> Examined:
    """A healthy cluster of two nodes with a token, but for what is given."""
    seen = Examined(
        Cluster((HEAD, OTHER)),
        {"head": head, "other": other},
        "head",
        unseen={"head": [], "other": []},
        skew_s={"other": 0.01},
        protected=True,
    )
    return replace(seen, **changed)


def settings(*overrides: str) -> RunSettings:
    return load_run("quickstart", ["runs=/shared/runs", "metrics.port=8090", *overrides]).settings


def unwell(found: list[Finding]) -> list[str]:
    return [str(finding) for finding in found if finding.level != "ok"]


def test_a_cluster_that_is_well_is_well_in_every_respect() -> None:
    versions = ", ".join(f"{name} {version}" for name, version in VERSIONS.items())
    assert [str(finding) for finding in diagnose(two_nodes(), settings(), planned=True)] == [
        f"ok        {versions} on every node",
        "ok        the cluster asks for a token",
        "ok        the nodes' clocks agree",
        "ok        open files, shared memory and Ray's disk on every node; the smallest object store has "
        "5.0 GB",
        "ok        runs = '/shared/runs' can be written to, and is shared",
        "ok        the model is there on every node",
        "ok        port 8090 for metrics is free",
        "ok        `ray job stop` waits 150 s, and a checkpoint may take 120 s (deadlines.stop_s)",
        "ok        the plan fits (`dynalign check` prints it)",
    ]


GPUS = Cluster((HEAD, replace(OTHER, gpus=(0,) * 8)))
TABLE: list[tuple[Examined, str]] = [
    (
        two_nodes(facts(versions=VERSIONS | {"ray": "2.59.0"})),
        "must fix  ray differs: 2.60.0 on head; 2.59.0 on other; install one version, or one image, "
        "everywhere",
    ),
    (
        two_nodes(facts(versions=VERSIONS | {"vllm": None})),
        "must fix  vllm differs: 0.32.0 on head; none on other; install one version, or one image, "
        "everywhere",
    ),
    (
        two_nodes(facts(versions=VERSIONS | {"vllm": None}), facts(versions=VERSIONS | {"vllm": None})),
        "must fix  vllm is not installed on every node; install dynalign[cpu] or dynalign[gpu] there",
    ),
    (
        two_nodes(facts(gpus=8, torch_gpus=7), cluster=GPUS),
        "must fix  other: torch can use 7 of 8 GPUs; install a driver that is new enough for torch's CUDA, "
        "or torch built for the driver's",
    ),
    (
        two_nodes(facts(gpus=7, torch_gpus=7), cluster=GPUS),
        "must fix  other: Ray offers 8 GPUs, and nvidia-smi knows 7; start Ray there without --num-gpus, or "
        "mend the driver",
    ),
    (
        two_nodes(facts(gpus=1)),
        "warning   other: Ray offers 0 of 1 GPUs; start Ray there without --num-gpus if the run is to have "
        "them all",
    ),
    (
        two_nodes(protected=False),
        "warning   the cluster asks for no token: whoever reaches its ports runs code on it; start every "
        "node with RAY_AUTH_MODE=token and "
        "one token (`ray get-auth-token --generate`)",
    ),
    (
        two_nodes(skew_s={"other": 16.0}),
        "must fix  other's clock is 16.0 s ahead of head's: a living driver there would be taken for dead; "
        "synchronize them (NTP)",
    ),
    (
        two_nodes(skew_s={"other": -2.0}),
        "warning   other's clock is 2.0 s behind head's: times in logs and reports do not fit together; "
        "synchronize them (NTP)",
    ),
    (
        two_nodes(facts(open_files=1024)),
        "warning   other: at most 1024 open files per process, and Ray wants 8192; raise it (`ulimit -Hn`, "
        "LimitNOFILE, the container's "
        "ulimits)",
    ),
    (
        two_nodes(facts(shared_memory_bytes=64 * 10**6)),
        "warning   other: /dev/shm holds 0.1 GB, and the object store has 5.0 GB, so that weights go over "
        "the disk; mount a larger one "
        "(docker: --shm-size; Kubernetes: an emptyDir with medium Memory)",
    ),
    (
        two_nodes(facts(temporary_free_bytes=7 * GB)),
        "warning   other: 7% of the disk of Ray's folder is free, and below 5 % Ray creates no more "
        "objects; free some, or start Ray with "
        "--temp-dir elsewhere",
    ),
    (
        two_nodes(head=facts(finds_command=False)),
        "warning   head: a submitted job does not find the command dynalign, which is not on the PATH of "
        "`ray start`; start Ray there with "
        "dynalign's environment active, or submit `python -m dynalign.launch.cli train …`",
    ),
    (
        two_nodes(unwritable={"other": "Permission denied"}),
        "must fix  runs = '/shared/runs' cannot be written to by other (Permission denied); mount it there, "
        "or set runs elsewhere",
    ),
    (
        two_nodes(unseen={"head": ["other"], "other": []}),
        "warning   runs = '/shared/runs' is not shared: head does not see what other wrote: a group scored "
        "by a node that dies is "
        "generated again; mount one file system there on all nodes",
    ),
    (
        two_nodes(facts(model_there=False)),
        "must fix  model = 'smollm2-135m-instruct' is not there on other; make or copy it there, or set "
        "model to a folder on shared "
        "storage",
    ),
    (
        two_nodes(head=facts(port_error="Address already in use")),
        "must fix  head: port 8090 of 127.0.0.1 cannot be listened on (Address already in use); set "
        "metrics.port=0 for a free one, or end "
        "what has it",
    ),
    (
        two_nodes(facts(port_error="Address already in use")),
        "warning   other: port 8090 of 127.0.0.1 cannot be listened on (Address already in use); set "
        "metrics.port=0 for a free one, or end "
        "what has it",
    ),
    (
        two_nodes(head=facts(variables={})),
        "warning   `ray job stop` kills a job 3 s after it asks it to end, and a checkpoint may take 120 s "
        "(deadlines.stop_s): submit it "
        """with --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "150"}}', or stop it with """
        "`dynalign stop`, which waits",
    ),
]


@pytest.mark.parametrize(("seen", "line"), TABLE, ids=[line[10:60] for _, line in TABLE])
def test_one_thing_that_is_off_is_one_line_with_its_remedy(seen: Examined, line: str) -> None:
    assert unwell(diagnose(seen, settings(), planned=True)) == [line]


def test_a_node_that_says_nothing_is_named_and_the_others_are_judged() -> None:
    silent = {"other": "nothing within 120 s"}
    seen = two_nodes(
        nodes={"head": WELL}, cluster=Cluster((HEAD,)), silent=silent, skew_s={}, unseen={"head": []}
    )
    assert unwell(diagnose(seen, settings(), planned=True)) == [
        "must fix  other did not answer: nothing within 120 s"
    ]


def test_ranks_on_several_nodes_need_storage_that_is_shared() -> None:
    (line,) = unwell(
        diagnose(two_nodes(unseen={"other": ["head"]}), settings("learner.ranks=2"), planned=True)
    )
    assert line.startswith(
        "must fix  runs = '/shared/runs' is not shared: other does not see what head wrote"
    )
    assert "a checkpoint of ranks on several nodes is never whole" in line


def test_the_small_engine_needs_no_vllm() -> None:
    without = facts(versions=VERSIONS | {"vllm": None})
    assert (
        unwell(diagnose(two_nodes(without, without), settings("rollout.engine=deterministic"), planned=True))
        == []
    )


def test_what_the_plan_lacks_is_passed_on_and_a_plan_that_is_not_there_yet_is_no_success() -> None:
    refused = [Mistake("placement.device", "gpu", "it takes 16 GPUs, and the cluster has 8", "add nodes")]
    assert unwell(diagnose(two_nodes(), settings(), refused)) == [f"must fix  {refused[0]}"]
    assert unwell(diagnose(two_nodes(), settings())) == [
        "warning   no plan yet: the model is downloaded when the run starts"
    ]


def test_this_machine_alone_has_no_token_no_clocks_to_compare_and_no_job_to_stop() -> None:
    alone = Examined(Cluster((HEAD,), started_here=True), {"head": facts(variables={})}, "head")
    said = [str(finding) for finding in diagnose(alone, settings(), planned=True)]
    assert unwell(diagnose(alone, settings(), planned=True)) == []
    assert said[0].endswith("on this machine")
    assert not any("token" in line or "clocks" in line or "ray job stop" in line for line in said)


def test_without_a_configuration_only_what_every_run_needs_is_judged() -> None:
    said = [
        finding.text
        for finding in diagnose(two_nodes(facts(model_there=None), facts(model_there=None)), None)
    ]
    assert len(said) == 4
    assert not any("runs =" in line or "port" in line for line in said)


def test_the_doctor_knows_where_ray_kills_actors_and_whether_the_run_comes_that_far() -> None:
    tighter = two_nodes(facts(host=replace(HOST, memory_bytes=9 * GB)), facts(host=HOST))
    found = [str(finding) for finding in diagnose(tighter, settings(), planned=True)]
    assert (
        "ok        other: Ray's memory monitor kills actors above 95% of 20.0 GB, after 8.0 GB more" in found
    )
    (line,) = unwell(
        diagnose(tighter, settings(), planned=True, needed_bytes={"head": 9 * GB, "other": 9 * GB})
    )
    assert line.startswith(
        "warning   memory of other: the plan needs 9.0 GB, and with 8.0 GB more in use Ray's"
    )
    switched_off = two_nodes(facts(host=replace(HOST, kill_share=None)))
    assert not any("monitor" in str(finding) for finding in diagnose(switched_off, settings()))


def test_the_doctor_names_cpus_without_bfloat16_and_the_settings_that_help() -> None:
    slow = two_nodes(facts(host=replace(HOST, bfloat16=False)), facts(host=HOST))
    (line,) = unwell(diagnose(slow, settings(), planned=True))
    assert line.startswith("warning   other: the cores have no instructions for bfloat16")
    assert line.endswith("set rollout.dtype=float32 learner.precision=float32")
    in_float32 = settings("rollout.dtype=float32", "learner.precision=float32")
    assert unwell(diagnose(slow, in_float32, planned=True)) == []
    assert len(unwell(diagnose(slow, None))) == 1
    assert (
        unwell(
            diagnose(
                two_nodes(
                    facts(gpus=1, host=replace(HOST, bfloat16=False)),
                    cluster=Cluster((HEAD, replace(OTHER, gpus=(0,)))),
                ),
                None,
            )
        )
        == []
    )
