"""`dynalign doctor`: examines the cluster that RAY_ADDRESS names, or this machine, before a run.

    join ─► one small actor per node ─► facts, test files on the storage, clocks ─► `diagnose` ─► a line per
    finding

The actors reserve no cores, so a fully used cluster can be examined too. A node that does not answer in
time is a finding.
"""

import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import user_path
from dynalign.launch.doctor import node_facts
from dynalign.launch.doctor.findings import Examined, Finding, diagnose
from dynalign.launch.doctor.node_facts import NodeFacts, NodeQuestion
from dynalign.launch.models.folder import model_folder
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.nodes import Cluster, from_ray
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.plan.refusals import cluster_refusals
from dynalign.launch.preflight import check
from dynalign.launch.ray_cluster.connection import asks_for_token, join, node_rows
from dynalign.launch.resume.open_run import open_run

NODE_DEADLINE_S = 120.0
"""For a new process on each node, and for importing torch there when a run needs GPUs."""
CLOCK_DEADLINE_S = 10.0
"""For one call to an actor that is ready."""


class NodeDoctor:
    """The actor that examines one node; each method is the function of that name in node_facts.py."""

    def gather(self, question: NodeQuestion) -> NodeFacts:
        return node_facts.gather(question)

    def clock_s(self) -> float:
        return node_facts.clock_s()

    def leave_mark(self, runs: str, mark: str, node: str) -> str | None:
        return node_facts.leave_mark(runs, mark, node)

    def marks_seen(self, runs: str, mark: str, expected: frozenset[str]) -> frozenset[str]:
        return node_facts.marks_seen(runs, mark, expected)

    def remove_marks(self, runs: str, mark: str) -> None:
        node_facts.remove_marks(runs, mark)


def doctor(loaded: LoadedRun | None) -> list[Finding]:
    """All findings.

    loaded: the run to examine for; None for what every run needs.
    Raises UserError when RAY_ADDRESS names no cluster that can be joined, CheckpointError when the run's
    newest checkpoint is damaged.
    """
    run = loaded.settings if loaded else None
    if not join():
        examined = _this_machine(run)
    else:
        try:
            examined = _cluster(run)
        finally:
            ray.shutdown()
    if loaded is None:
        return diagnose(examined, None)
    checked = check(open_run(loaded))
    refused: list[Mistake] = list(checked.mistakes)
    if checked.plan is not None and examined.protected is not None:
        refused += cluster_refusals(checked.plan, examined.cluster)
    needed = _needed_bytes(checked.plan, examined)
    found = diagnose(examined, run, refused, checked.plan is not None, needed)
    return [*found, *(Finding("ok", line) for line in checked.asked)]


def _needed_bytes(plan: PlacementPlan | None, examined: Examined) -> dict[str, int]:
    """Node → host memory that the run takes of it."""
    if plan is None:
        return {}
    here = plan.on(examined.cluster)
    names = list(examined.nodes)
    return {names[index]: here.host_bytes(index) for index in here.nodes_used}


def _this_machine(run: RunSettings | None) -> Examined:
    machine = replace(this_machine(with_gpus=True), name="this machine")
    asked = _question(run, tempfile.gettempdir())
    unwritable = {}
    if asked.runs is not None:
        mark = _mark()
        why = node_facts.leave_mark(asked.runs, mark, machine.name)
        node_facts.remove_marks(asked.runs, mark)
        unwritable = {machine.name: why} if why else {}
    facts = {machine.name: node_facts.gather(asked)}
    return Examined(Cluster((machine,), started_here=True), facts, machine.name, unwritable=unwritable)


def _cluster(run: RunSettings | None) -> Examined:
    rows = _named([row for row in node_rows() if row["Alive"]])
    here = ray.get_runtime_context().get_node_id()
    head = next(name for name, row in rows.items() if row["NodeID"] == here)
    actors = {name: _on_node(row["NodeID"]) for name, row in rows.items()}
    asked = _question(run, _session_folder())
    silent: dict[str, str] = {}
    calls = {name: actor.gather.remote(asked) for name, actor in actors.items()}
    facts = _answers(calls, NODE_DEADLINE_S, silent)
    there = {name: actors[name] for name in facts}
    unwritable, unseen = _try_storage(there, asked.runs, silent) if asked.runs else ({}, {})
    return Examined(
        cluster=from_ray(rows[name] for name in facts),
        nodes=facts,
        head=head,
        silent=silent,
        unwritable=unwritable,
        unseen=unseen,
        skew_s={name: _skew_s(actor) for name, actor in there.items() if name != head and name not in silent},
        protected=asks_for_token(),
    )


def _named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by host name, with Ray's node id appended where several nodes are on one host."""
    hosts = [row["NodeManagerHostname"] for row in rows]
    return {
        host if hosts.count(host) == 1 else f"{host}-{row['NodeID'][:6]}": row
        for host, row in zip(hosts, rows, strict=True)
    }


def _on_node(node_id: str) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(NodeDoctor).options(num_cpus=0, scheduling_strategy=pinned, max_restarts=0).remote()


def _answers(calls: Mapping[str, Any], deadline_s: float, silent: dict[str, str]) -> dict[str, Any]:
    """What each node answered by the deadline. For the others, adds the reason to `silent`."""
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=deadline_s)
    answers = {}
    for node, call in calls.items():
        try:
            answers[node] = ray.get(call, timeout=0)
        except ray.exceptions.GetTimeoutError:
            silent[node] = f"nothing within {deadline_s:g} s; look at that node's Ray logs"
        except ray.exceptions.RayError as error:
            silent[node] = str(error).strip().splitlines()[-1].strip()
    return answers


def _try_storage(
    actors: Mapping[str, Any], runs: str, silent: dict[str, str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Tests whether all nodes share the runs folder, by a file that each node writes there.

    Returns the nodes that cannot write, each with the reason; and for every other node the nodes whose
    files it does not see.
    """
    mark = _mark()
    try:
        writing = {name: actor.leave_mark.remote(runs, mark, name) for name, actor in actors.items()}
        left = _answers(writing, NODE_DEADLINE_S, silent)
        wrote = frozenset(name for name, why in left.items() if why is None)
        looking = {name: actors[name].marks_seen.remote(runs, mark, wrote) for name in wrote}
        seen = _answers(looking, NODE_DEADLINE_S, silent)
    finally:
        removing = {name: actor.remove_marks.remote(runs, mark) for name, actor in actors.items()}
        _answers(removing, NODE_DEADLINE_S, {})
    unwritable = {name: why for name, why in left.items() if why}
    unseen = {name: sorted(wrote - marks) for name, marks in sorted(seen.items())}
    return unwritable, unseen


def _skew_s(actor: Any) -> float:
    """Seconds by which a node's clock is ahead of this one's, to within half the time of a call.

    The actor must have answered a call before, so that its start is not part of the time.
    """
    before_s = time.time()
    there_s = float(ray.get(actor.clock_s.remote(), timeout=CLOCK_DEADLINE_S))
    return there_s - (before_s + time.time()) / 2


def _mark() -> str:
    return f".doctor-{secrets.token_hex(4)}"


def _session_folder() -> str:
    """Where the joined Ray keeps its files on each node."""
    node: Any = ray_worker._global_node  # None, as its type says, only before Ray is joined
    return str(node.get_session_dir_path())


def _question(run: RunSettings | None, temporary: str) -> NodeQuestion:
    if run is None:
        return NodeQuestion(None, None, None, "", True, temporary)
    runs = str(user_path("runs", run.runs))
    on_gpu = run.placement.device == "gpu"
    return NodeQuestion(runs, _model(run), run.metrics.port, run.metrics.host, on_gpu, temporary)


def _model(run: RunSettings) -> str | None:
    """The model folder that every node needs.

    None for a hub id, which is downloaded, and for a wrong setting, which `check` reports.
    """
    try:
        found = model_folder(run.model)
    except UserError:
        return None
    return str(found) if isinstance(found, Path) else None
