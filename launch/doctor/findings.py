"""From what was found out about a cluster to what must be fixed before a run: pure judgements, one line each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.launch.doctor.node_facts import NodeFacts
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.ray_cluster.ray_job import STOP_WAIT_S, STOP_WAIT_VARIABLE, stop_advice

Level = Literal["ok", "warning", "must fix"]

SKEW_WARNING_S, SKEW_LIMIT_S = 1.0, 15.0
"""A driver on another node is taken for dead when its last beat looks 30 s old (dynalign.run_folder.owner): half of that is left for the clocks."""
OPEN_FILES = 8192
"""Ray's own recommendation."""
TEMPORARY_FREE = 0.10
"""Ray creates no more objects on a node when less than 5 % of the disk of its folder is free."""


@dataclass(frozen=True)
class Finding:
    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level:<9} {self.text}".replace("\n", " ")


@dataclass(frozen=True)
class Examined:
    """cluster: as Ray tells, or this machine alone. nodes: facts by node name, in the cluster's order. silent: node → why it told
    nothing. head: the node this command ran on. unwritable: node → why it cannot write to the runs folder. unseen: node → the nodes whose
    files it does not see there. skew_s: node → seconds its clock is ahead of this one's. protected: whether the cluster asks for a token;
    None for this machine alone."""

    cluster: Cluster
    nodes: Mapping[str, NodeFacts]
    head: str
    silent: Mapping[str, str] = field(default_factory=dict)
    unwritable: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skew_s: Mapping[str, float] = field(default_factory=dict)
    protected: bool | None = None


def diagnose(
    examined: Examined, run: RunSettings | None, refused: Sequence[Mistake] = (), planned: bool = False
) -> list[Finding]:
    """Every check with its result. run: None where no configuration was given. refused: what its plan, or its configuration, has
    against it on this cluster. planned: whether there is a plan at all."""
    found = [*_silent(examined), *_versions(examined, run), *_gpus(examined)]
    found += [*_protection(examined), *_clocks(examined), *_limits(examined), *_command(examined)]
    if run is not None:
        found += [
            *_storage(examined, run),
            *_model(examined, run),
            *_port(examined, run),
            *_stop(examined, run),
            *_plan(refused, planned),
        ]
    return found


def _silent(examined: Examined) -> list[Finding]:
    return [Finding("must fix", f"{node} did not answer: {why}") for node, why in examined.silent.items()]


def _on(nodes: Sequence[str], examined: Examined) -> str:
    """`on every node`, or which ones."""
    if examined.protected is None:
        return "on this machine"
    return "on every node" if len(nodes) == len(examined.nodes) else f"on {', '.join(nodes)}"


def _versions(examined: Examined, run: RunSettings | None) -> list[Finding]:
    """Alike on all nodes, and there; only a run with the small engine needs no vLLM."""
    found, alike = [], []
    names = next(iter(examined.nodes.values())).versions if examined.nodes else {}
    for name in names:
        if name == "vllm" and run is not None and run.rollout.engine == "deterministic":
            continue
        by_version: dict[str | None, list[str]] = {}
        for node, facts in examined.nodes.items():
            by_version.setdefault(facts.versions[name], []).append(node)
        if len(by_version) > 1:
            said = "; ".join(
                f"{version or 'none'} {_on(nodes, examined)}" for version, nodes in by_version.items()
            )
            found.append(
                Finding("must fix", f"{name} differs: {said}; install one version, or one image, everywhere")
            )
        elif None in by_version:
            rule = f"{name} is not installed {_on(by_version[None], examined)}"
            found.append(Finding("must fix", f"{rule}; install dynalign[cpu] or dynalign[gpu] there"))
        else:
            alike.append(f"{name} {next(iter(by_version))}")
    return [
        *([Finding("ok", f"{', '.join(alike)} {_on(list(examined.nodes), examined)}")] if alike else []),
        *found,
    ]


def _gpus(examined: Examined) -> list[Finding]:
    found = []
    offered = {
        node: len(seen.gpus) for node, seen in zip(examined.nodes, examined.cluster.nodes, strict=False)
    }
    for node, facts in examined.nodes.items():
        if facts.torch_gpus is not None and facts.torch_gpus < facts.gpus:
            remedy = "install a driver that is new enough for torch's CUDA, or torch built for the driver's"
            found.append(
                Finding(
                    "must fix", f"{node}: torch can use {facts.torch_gpus} of {facts.gpus} GPUs; {remedy}"
                )
            )
        if offered[node] > facts.gpus:
            rule = f"{node}: Ray offers {offered[node]} GPUs, and nvidia-smi knows {facts.gpus}"
            found.append(
                Finding("must fix", f"{rule}; start Ray there without --num-gpus, or mend the driver")
            )
        elif offered[node] < facts.gpus:
            rule = f"{node}: Ray offers {offered[node]} of {facts.gpus} GPUs"
            found.append(
                Finding(
                    "warning", f"{rule}; start Ray there without --num-gpus if the run is to have them all"
                )
            )
    total = sum(offered.values())
    return found or ([Finding("ok", f"{total} GPUs, as many as nvidia-smi knows")] if total else [])


def _protection(examined: Examined) -> list[Finding]:
    if examined.protected is None:
        return []
    if examined.protected:
        return [Finding("ok", "the cluster asks for a token")]
    rule = "the cluster asks for no token: whoever reaches its ports runs code on it"
    return [
        Finding(
            "warning",
            f"{rule}; start every node with RAY_AUTH_MODE=token and one token (`ray get-auth-token --generate`)",
        )
    ]


def _clocks(examined: Examined) -> list[Finding]:
    found = []
    for node, skew_s in examined.skew_s.items():
        rule = f"{node}'s clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} {examined.head}'s"
        if abs(skew_s) > SKEW_LIMIT_S:
            found.append(
                Finding(
                    "must fix",
                    f"{rule}: a living driver there would be taken for dead; synchronize them (NTP)",
                )
            )
        elif abs(skew_s) > SKEW_WARNING_S:
            found.append(
                Finding(
                    "warning",
                    f"{rule}: times in logs and reports do not fit together; synchronize them (NTP)",
                )
            )
    return found or ([Finding("ok", "the nodes' clocks agree")] if len(examined.nodes) > 1 else [])


def _limits(examined: Examined) -> list[Finding]:
    """What Ray itself runs out of."""
    found = []
    stores = {
        node: seen.object_store_bytes or 0
        for node, seen in zip(examined.nodes, examined.cluster.nodes, strict=False)
    }
    for node, facts in examined.nodes.items():
        if facts.open_files < OPEN_FILES:
            rule = f"{node}: at most {facts.open_files} open files per process, and Ray wants {OPEN_FILES}"
            found.append(
                Finding("warning", f"{rule}; raise it (`ulimit -Hn`, LimitNOFILE, the container's ulimits)")
            )
        if facts.shared_memory_bytes < stores[node]:
            rule = f"{node}: /dev/shm holds {gigabytes(facts.shared_memory_bytes)}, and the object store has {gigabytes(stores[node])}"
            remedy = "mount a larger one (docker: --shm-size; Kubernetes: an emptyDir with medium Memory)"
            found.append(Finding("warning", f"{rule}, so that weights go over the disk; {remedy}"))
        if facts.temporary_bytes and facts.temporary_free_bytes < TEMPORARY_FREE * facts.temporary_bytes:
            share = facts.temporary_free_bytes / facts.temporary_bytes
            rule = f"{node}: {share:.0%} of the disk of Ray's folder is free, and below 5 % Ray creates no more objects"
            found.append(Finding("warning", f"{rule}; free some, or start Ray with --temp-dir elsewhere"))
    store = (
        f"; the smallest object store has {gigabytes(min(stores.values()))}" if any(stores.values()) else ""
    )
    return found or [
        Finding(
            "ok", f"open files, shared memory and Ray's disk {_on(list(examined.nodes), examined)}{store}"
        )
    ]


def _command(examined: Examined) -> list[Finding]:
    """Ray's jobs run on the head, with the PATH that Ray was started with."""
    if (
        examined.protected is None
        or examined.head not in examined.nodes
        or examined.nodes[examined.head].finds_command
    ):
        return []
    rule = f"{examined.head}: a submitted job does not find the command dynalign, which is not on the PATH of `ray start`"
    remedy = "start Ray there with dynalign's environment active, or submit `python -m dynalign.launch.cli train …`"
    return [Finding("warning", f"{rule}; {remedy}")]


def _storage(examined: Examined, run: RunSettings) -> list[Finding]:
    found = [
        Finding(
            "must fix",
            f"runs = {run.runs!r} cannot be written to by {node} ({why}); mount it there, or set runs elsewhere",
        )
        for node, why in examined.unwritable.items()
    ]
    apart = {node: nodes for node, nodes in examined.unseen.items() if nodes}
    if apart:
        pairs = "; ".join(
            f"{node} does not see what {', '.join(nodes)} wrote" for node, nodes in apart.items()
        )
        cost = "a group scored by a node that dies is generated again"
        needed = run.learner.ranks > 1
        if needed:
            cost += ", and a checkpoint of ranks on several nodes is never whole"
        rule = f"runs = {run.runs!r} is not shared: {pairs}: {cost}"
        found.append(
            Finding("must fix" if needed else "warning", f"{rule}; mount one file system there on all nodes")
        )
    return found or [
        Finding(
            "ok",
            f"runs = {run.runs!r} can be written to{'' if examined.protected is None else ', and is shared'}",
        )
    ]


def _model(examined: Examined, run: RunSettings) -> list[Finding]:
    missing = [node for node, facts in examined.nodes.items() if facts.model_there is False]
    if not missing:
        there = [node for node, facts in examined.nodes.items() if facts.model_there]
        return [Finding("ok", f"the model is there {_on(there, examined)}")] if there else []
    rule = f"model = {run.model!r} is not there {_on(missing, examined)}"
    return [Finding("must fix", f"{rule}; make or copy it there, or set model to a folder on shared storage")]


def _port(examined: Examined, run: RunSettings) -> list[Finding]:
    if not run.metrics.port:
        return []
    taken = {node: facts.port_error for node, facts in examined.nodes.items() if facts.port_error}
    found = []
    for node, why in taken.items():
        rule = f"{node}: port {run.metrics.port} of {run.metrics.host} cannot be listened on ({why})"
        remedy = "set metrics.port=0 for a free one, or end what has it"
        found.append(Finding("must fix" if node == examined.head else "warning", f"{rule}; {remedy}"))
    return found or [Finding("ok", f"port {run.metrics.port} for metrics is free")]


def _stop(examined: Examined, run: RunSettings) -> list[Finding]:
    """Ray's jobs run on the head, where its environment says how long they may take to end."""
    if examined.protected is None or examined.head not in examined.nodes:
        return []
    waits_s = int(examined.nodes[examined.head].variables.get(STOP_WAIT_VARIABLE, STOP_WAIT_S))
    advice = stop_advice(waits_s, run.deadlines.stop_s)
    waits = f"`ray job stop` waits {waits_s} s, and a checkpoint may take {run.deadlines.stop_s:g} s (deadlines.stop_s)"
    return [Finding("warning", advice) if advice else Finding("ok", waits)]


def _plan(refused: Sequence[Mistake], planned: bool) -> list[Finding]:
    fits = (
        "the plan fits (`dynalign check` prints it)"
        if planned
        else "no plan yet: the model is downloaded when the run starts"
    )
    return [Finding("must fix", str(mistake)) for mistake in refused] or [
        Finding("ok" if planned else "warning", fits)
    ]
