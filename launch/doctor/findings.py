"""From facts about a cluster to what must be fixed before a run: pure functions, one line per finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.launch.doctor.node_facts import NodeFacts
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.nodes import Cluster
from dynalign.launch.plan.warnings import NO_BFLOAT16, bfloat16_warning, memory_warning
from dynalign.launch.ray_cluster.ray_job import STOP_WAIT_S, STOP_WAIT_VARIABLE, stop_advice

Level = Literal["ok", "warning", "must fix"]

SKEW_WARNING_S = 1.0
"""Beyond it, times in logs of different nodes cannot be compared."""
SKEW_LIMIT_S = 15.0
"""Half of the 30 s after which a driver without a heartbeat counts as dead (dynalign.run_folder.owner)."""
OPEN_FILES = 8192
"""Ray's own recommendation."""
TEMPORARY_FREE = 0.10
"""Free share of the disk of Ray's folder; below 5 % Ray creates no more objects on that node."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer: `Finding("warning", "gpu-b's clock is 2.1 s ahead of gpu-a's; …")`."""

    level: Level
    """Whether a run can start in spite of it."""
    text: str
    """What was found, and the remedy."""

    def __str__(self) -> str:
        return f"{self.level:<9} {self.text}".replace("\n", " ")


@dataclass(frozen=True)
class Examined:
    """What an examination found out about a cluster, or about this machine."""

    cluster: Cluster
    """The nodes that answered, as Ray describes them; or this machine alone."""
    nodes: Mapping[str, NodeFacts]
    """Facts by node name, in the cluster's order."""
    head: str
    """The node that this command ran on."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Nodes that did not answer, each with the reason."""
    unwritable: Mapping[str, str] = field(default_factory=dict)
    """Nodes that cannot write to the runs folder, each with the reason."""
    unseen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each node, the nodes whose files in the runs folder it does not see."""
    skew_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by which each node's clock is ahead of the head's."""
    protected: bool | None = None
    """Whether the cluster asks for a token; None for this machine alone."""


def diagnose(
    examined: Examined,
    run: RunSettings | None,
    refused: Sequence[Mistake] = (),
    planned: bool = False,
    needed_bytes: Mapping[str, int] | None = None,
) -> list[Finding]:
    """Every check with its result.

    run: None where no configuration was given.
    refused: the mistakes of its configuration, or of its plan on this cluster.
    planned: whether there is a plan, which needs a known model.
    needed_bytes: node → host memory that this plan takes of it; None without a plan.
    """
    found = [*_silent(examined), *_versions(examined, run), *_gpus(examined)]
    found += [*_protection(examined), *_clocks(examined), *_limits(examined), *_command(examined)]
    found += [*_memory(examined, needed_bytes or {}), *_bfloat16(examined, run)]
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
    """`on every node`, or `on` the names of some."""
    if examined.protected is None:
        return "on this machine"
    return "on every node" if len(nodes) == len(examined.nodes) else f"on {', '.join(nodes)}"


def _versions(examined: Examined, run: RunSettings | None) -> list[Finding]:
    """Packages must be installed on all nodes, in one version.

    A run with the deterministic engine needs no vLLM.
    """
    found: list[Finding] = []
    alike: list[str] = []
    names = next(iter(examined.nodes.values())).versions if examined.nodes else {}
    for name in names:
        if name == "vllm" and run is not None and run.rollout.engine == "deterministic":
            continue
        by_version: dict[str | None, list[str]] = {}
        for node, facts in examined.nodes.items():
            by_version.setdefault(facts.versions[name], []).append(node)
        if len(by_version) > 1:
            versions = [
                f"{version or 'none'} {_on(nodes, examined)}" for version, nodes in by_version.items()
            ]
            rule = f"{name} differs: {'; '.join(versions)}"
            found.append(Finding("must fix", f"{rule}; install one version, or one image, everywhere"))
        elif None in by_version:
            rule = f"{name} is not installed {_on(by_version[None], examined)}"
            found.append(Finding("must fix", f"{rule}; install dynalign[cpu] or dynalign[gpu] there"))
        else:
            alike.append(f"{name} {next(iter(by_version))}")
    if alike:
        found.insert(0, Finding("ok", f"{', '.join(alike)} {_on(list(examined.nodes), examined)}"))
    return found


def _gpus(examined: Examined) -> list[Finding]:
    found = []
    offered = {
        node: len(seen.gpus) for node, seen in zip(examined.nodes, examined.cluster.nodes, strict=False)
    }
    for node, facts in examined.nodes.items():
        if facts.torch_gpus is not None and facts.torch_gpus < facts.gpus:
            rule = f"{node}: torch can use {facts.torch_gpus} of {facts.gpus} GPUs"
            remedy = "install a driver that is new enough for torch's CUDA, or torch built for the driver's"
            found.append(Finding("must fix", f"{rule}; {remedy}"))
        if offered[node] > facts.gpus:
            rule = f"{node}: Ray offers {offered[node]} GPUs, and nvidia-smi knows {facts.gpus}"
            remedy = "start Ray there without --num-gpus, or mend the driver"
            found.append(Finding("must fix", f"{rule}; {remedy}"))
        elif offered[node] < facts.gpus:
            rule = f"{node}: Ray offers {offered[node]} of {facts.gpus} GPUs"
            remedy = "start Ray there without --num-gpus if the run is to have them all"
            found.append(Finding("warning", f"{rule}; {remedy}"))
    total = sum(offered.values())
    return found or ([Finding("ok", f"{total} GPUs, as many as nvidia-smi knows")] if total else [])


def _protection(examined: Examined) -> list[Finding]:
    if examined.protected is None:
        return []
    if examined.protected:
        return [Finding("ok", "the cluster asks for a token")]
    rule = "the cluster asks for no token: whoever reaches its ports runs code on it"
    remedy = "start every node with RAY_AUTH_MODE=token and one token (`ray get-auth-token --generate`)"
    return [Finding("warning", f"{rule}; {remedy}")]


def _clocks(examined: Examined) -> list[Finding]:
    found = []
    for node, skew_s in examined.skew_s.items():
        side = "ahead of" if skew_s > 0 else "behind"
        rule = f"{node}'s clock is {abs(skew_s):.1f} s {side} {examined.head}'s"
        if abs(skew_s) > SKEW_LIMIT_S:
            risk = "a living driver there would be taken for dead"
            found.append(Finding("must fix", f"{rule}: {risk}; synchronize them (NTP)"))
        elif abs(skew_s) > SKEW_WARNING_S:
            risk = "times in logs and reports do not fit together"
            found.append(Finding("warning", f"{rule}: {risk}; synchronize them (NTP)"))
    return found or ([Finding("ok", "the nodes' clocks agree")] if len(examined.nodes) > 1 else [])


def _limits(examined: Examined) -> list[Finding]:
    """The limits of a node that stop Ray: open files, shared memory, disk."""
    found = []
    stores = {
        node: seen.object_store_bytes or 0
        for node, seen in zip(examined.nodes, examined.cluster.nodes, strict=False)
    }
    for node, facts in examined.nodes.items():
        if facts.open_files < OPEN_FILES:
            rule = f"{node}: at most {facts.open_files} open files per process, and Ray wants {OPEN_FILES}"
            remedy = "raise it (`ulimit -Hn`, LimitNOFILE, the container's ulimits)"
            found.append(Finding("warning", f"{rule}; {remedy}"))
        if facts.shared_memory_bytes < stores[node]:
            shared = gigabytes(facts.shared_memory_bytes)
            rule = f"{node}: /dev/shm holds {shared}, and the object store has {gigabytes(stores[node])}"
            remedy = "mount a larger one (docker: --shm-size; Kubernetes: an emptyDir with medium Memory)"
            found.append(Finding("warning", f"{rule}, so that weights go over the disk; {remedy}"))
        if facts.temporary_bytes and facts.temporary_free_bytes < TEMPORARY_FREE * facts.temporary_bytes:
            share = facts.temporary_free_bytes / facts.temporary_bytes
            limit = "below 5 % Ray creates no more objects"
            rule = f"{node}: {share:.0%} of the disk of Ray's folder is free, and {limit}"
            found.append(Finding("warning", f"{rule}; free some, or start Ray with --temp-dir elsewhere"))
    everywhere = f"open files, shared memory and Ray's disk {_on(list(examined.nodes), examined)}"
    if any(stores.values()):
        everywhere += f"; the smallest object store has {gigabytes(min(stores.values()))}"
    return found or [Finding("ok", everywhere)]


def _memory(examined: Examined, needed_bytes: Mapping[str, int]) -> list[Finding]:
    """Where Ray's memory monitor kills actors, and whether the run comes that far."""
    hosts = {node: facts.host for node, facts in examined.nodes.items() if facts.host is not None}
    watched = {node: host for node, host in hosts.items() if host.headroom_bytes is not None}
    found = []
    for node, host in watched.items():
        if line := memory_warning(replace(host, name=node), needed_bytes.get(node, 0)):
            found.append(Finding("warning", line))
    if found or not watched:
        return found
    tightest = min(watched, key=lambda node: watched[node].headroom_bytes or 0)
    host = watched[tightest]
    threshold = f"above {host.kill_share:.0%} of {gigabytes(host.total_bytes)}"
    left = f"after {gigabytes(host.headroom_bytes or 0)} more"
    return [Finding("ok", f"{tightest}: Ray's memory monitor kills actors {threshold}, {left}")]


def _bfloat16(examined: Examined, run: RunSettings | None) -> list[Finding]:
    """Whether CPUs that compute have instructions for the run's precision."""
    hosts = [
        replace(facts.host, name=node) for node, facts in examined.nodes.items() if facts.host is not None
    ]
    if run is not None:
        line = bfloat16_warning(run, hosts)
        return [Finding("warning", line)] if line else []
    slow = [host.name for host in hosts if not host.bfloat16 and not examined.nodes[host.name].gpus]
    remedy = "for runs on these CPUs, set rollout.dtype=float32 learner.precision=float32"
    return [Finding("warning", f"{', '.join(slow)}: {NO_BFLOAT16}; {remedy}")] if slow else []


def _command(examined: Examined) -> list[Finding]:
    """Ray's jobs run on the head, with the PATH that Ray was started with: `dynalign` must be on it."""
    if examined.protected is None or examined.head not in examined.nodes:
        return []
    if examined.nodes[examined.head].finds_command:
        return []
    missing = "does not find the command dynalign, which is not on the PATH of `ray start`"
    rule = f"{examined.head}: a submitted job {missing}"
    submit = "submit `python -m dynalign.launch.cli train …`"
    remedy = f"start Ray there with dynalign's environment active, or {submit}"
    return [Finding("warning", f"{rule}; {remedy}")]


def _storage(examined: Examined, run: RunSettings) -> list[Finding]:
    remedy = "mount it there, or set runs elsewhere"
    found = [
        Finding("must fix", f"runs = {run.runs!r} cannot be written to by {node} ({why}); {remedy}")
        for node, why in examined.unwritable.items()
    ]
    apart = {node: nodes for node, nodes in examined.unseen.items() if nodes}
    if apart:
        pairs = "; ".join(
            f"{node} does not see what {', '.join(others)} wrote" for node, others in apart.items()
        )
        cost = "a group scored by a node that dies is generated again"
        needed = run.learner.ranks > 1
        if needed:
            cost += ", and a checkpoint of ranks on several nodes is never whole"
        rule = f"runs = {run.runs!r} is not shared: {pairs}: {cost}"
        level: Level = "must fix" if needed else "warning"
        found.append(Finding(level, f"{rule}; mount one file system there on all nodes"))
    shared = "" if examined.protected is None else ", and is shared"
    return found or [Finding("ok", f"runs = {run.runs!r} can be written to{shared}")]


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
    """Ray's jobs run on the head, whose environment says how long they may take to stop."""
    if examined.protected is None or examined.head not in examined.nodes:
        return []
    waits_s = int(examined.nodes[examined.head].variables.get(STOP_WAIT_VARIABLE, STOP_WAIT_S))
    advice = stop_advice(waits_s, run.deadlines.stop_s)
    checkpoint = f"a checkpoint may take {run.deadlines.stop_s:g} s (deadlines.stop_s)"
    waits = f"`ray job stop` waits {waits_s} s, and {checkpoint}"
    return [Finding("warning", advice) if advice else Finding("ok", waits)]


def _plan(refused: Sequence[Mistake], planned: bool) -> list[Finding]:
    if refused:
        return [Finding("must fix", str(mistake)) for mistake in refused]
    if planned:
        return [Finding("ok", "the plan fits (`dynalign check` prints it)")]
    return [Finding("warning", "no plan yet: the model is downloaded when the run starts")]
