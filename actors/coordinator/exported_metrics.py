"""What Prometheus gets to see of a run: every name with its type, labels, unit and help, and where its value comes from.

One table, from which the endpoint (`exporter.py`) and docs/metrics.md are made. A value that is not known (yet) has no sample, never a
false 0. Names follow Prometheus' conventions: the prefix `dynalign_`, base units, `_total` for what only grows.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.values import LACKS_SIGNAL
from dynalign.run_folder.metric_names import METRICS, Metric

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, without that of `run`, and the value."""

STATES = ("starting", "running", "paused", "stopping", "finished", "interrupted", "failed")
WORKER_STATES = ("waiting", "placing", "starting", "serving", "draining")
CAUSES = {
    "worker": ("died", "hung", "failed", "weights", "storage"),
    "ledger": ("died", "hung"),
    "learner": ("died", "hung"),
    "coordinator": ("died", "hung"),
}
"""Kind of actor → causes that are counted from 0 on, so that the first one already is an increase."""


@dataclass(frozen=True)
class Known:
    """What the endpoint has been told up to now. It is replaced as a whole, so that a scrape always sees one moment.

    row: the newest of `metrics.jsonl`. heldout: the newest measured held-out figures. ledger: `LedgerActor.status`. supervised:
    `Supervisor.report`. ages: trained groups by their age at their commit, in versions. Times are Unix seconds.
    """

    run: RunSettings
    lineage: int
    started_s: float
    state: str = "starting"
    row: Mapping[str, Any] = field(default_factory=dict)
    heldout: Mapping[str, float] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    supervised: Mapping[str, Any] = field(default_factory=dict)
    decisions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    ages: Counter[int] = field(default_factory=Counter)
    last_step_s: float | None = None
    first_step_s: float | None = None
    looked_s: float | None = None
    gpu_s_per_group: float | None = None
    checkpoint_step: int | None = None
    checkpoint_s: float | None = None
    checkpoint_failures: int = 0
    versions: tuple[str, ...] = ()
    disk: Callable[[], tuple[int, int] | None] = lambda: None

    @property
    def gpus(self) -> float | None:
        """GPUs that the run's actors hold; None where the supervision has not said so."""
        return 0.0 if self.run.placement.device == "cpu" else self.supervised.get("gpus")

    @property
    def step(self) -> int | None:
        """Committed. What the ledger said last is up to a second old, and behind the row or checkpoint of a step that has just ended."""
        heard = (self.ledger.get("committed_step"), self.row.get("step"), self.checkpoint_step)
        return max((step for step in heard if step is not None), default=None)

    @property
    def age_buckets(self) -> tuple[int, ...]:
        bound = self.run.algorithm.max_staleness
        return tuple(sorted({age for age in (0, 1, 2, 4, 8, 16, 32, 64) if age < bound} | {bound}))


@dataclass(frozen=True)
class Exported:
    """One name, without prefix and without a counter's `_total`. `unit` "1" is a plain number."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    help: str
    samples: Callable[[Known], Samples]
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"dynalign_{self.name}" + ("_total" if self.kind == "counter" else "")


Value = Callable[[Known], float | int | None]


def _one(value: Value) -> Callable[[Known], Samples]:
    def samples(known: Known) -> Samples:
        found = value(known)
        return [] if found is None else [((), float(found))]

    return samples


def _gauge(name: str, unit: str, help_: str, value: Value) -> Exported:
    return Exported(name, "gauge", unit, help_, _one(value))


def _counter(name: str, unit: str, help_: str, value: Value) -> Exported:
    return Exported(name, "counter", unit, help_, _one(value))


def _term(name: str) -> Value:
    return lambda known: known.ledger.get(name)


def _mirror(name: str) -> Value:
    return lambda known: (known.supervised.get("mirror") or {}).get(name)


def prometheus_name(metric: Metric) -> str:
    """The name of a row's metric in base units: `learn_s` → `learn_seconds`, `judgements_per_s` → `judgements_per_second`."""
    return re.sub("_s$", "_second" if metric.unit.endswith("/s") else "_seconds", metric.name)


def _row(metric: Metric) -> Exported:
    unit = {"s": "seconds", "tokens/s": "tokens per second", "1/s": "per second"}.get(
        metric.unit, metric.unit
    )
    if metric.name.startswith("heldout_"):
        return _gauge(
            prometheus_name(metric),
            unit,
            metric.help + " The newest evaluation.",
            lambda known: known.heldout.get(metric.name),
        )
    return _gauge(prometheus_name(metric), unit, metric.help, lambda known: known.row.get(metric.name))


_ELSEWHERE = {"step", "lineage", "policy_version", "workers", "worker_restarts"}
"""Names of the row that are told more often than once a step; with the ledger's terms."""


def _withheld(known: Known) -> Samples:
    if known.ledger:
        by_reason = dict.fromkeys(sorted(LACKS_SIGNAL), 0) | known.ledger["withheld_by_reason"]
        yield from (((reason,), count) for reason, count in by_reason.items())


def _restarts(known: Known) -> Samples:
    if known.supervised:
        counts = {(kind, cause): 0 for kind, causes in CAUSES.items() for cause in causes}
        counts |= {tuple(key.split("/", 1)): count for key, count in known.supervised["restarts"].items()}
        yield from counts.items()


def _workers(known: Known) -> Samples:
    if known.supervised:
        counts = Counter(worker["state"] for worker in known.supervised["workers"])
        yield from (((state,), counts[state]) for state in WORKER_STATES)


def _of_workers(key: str) -> Callable[[Known], Samples]:
    """What each worker says of itself; one that has not answered yet has no figures."""
    return lambda known: [
        ((each["name"],), each[key])
        for each in known.supervised.get("workers", [])
        if each.get(key) is not None
    ]


def _states(known: Known) -> Samples:
    return [((state,), float(known.state == state)) for state in STATES]


def _ages(known: Known) -> Samples:
    """Cumulative buckets, then the sum, which prometheus-client wants apart."""
    for bound in known.age_buckets:
        yield (str(float(bound)),), sum(count for age, count in known.ages.items() if age <= bound)
    yield ("+Inf",), sum(known.ages.values())


def _range(index: int) -> Value:
    def bound(known: Known) -> int | None:
        workers = known.run.rollout.workers
        return (workers.min, workers.max)[index]

    return bound


def _learner_wait_fraction(known: Known) -> float | None:
    wait_s, step_s = known.row.get("learner_wait_s"), known.row.get("step_s")
    return None if wait_s is None or not step_s else min(1.0, wait_s / step_s)


def _disk(index: int) -> Value:
    def bytes_(known: Known) -> int | None:
        sizes = known.disk()
        return None if sizes is None else sizes[index]

    return bytes_


def _decisions(known: Known) -> Samples:
    return known.decisions.items()


_RUN: tuple[Exported, ...] = (
    Exported("build_info", "gauge", "1",
        "Always 1; the versions are the labels.", lambda known: [(known.versions, 1.0)], ("version", "ray", "vllm")),
    Exported("run_state", "gauge", "1", "1 for the state that the run is in, 0 for the others.", _states, ("state",)),
    _gauge("run_started_timestamp_seconds", "Unix seconds", "When the coordinator that answers here began.", lambda known: known.started_s),
    _gauge("look_timestamp_seconds", "Unix seconds", "When the supervision last looked here; once a second.", lambda known: known.looked_s),
    _gauge("lineage", "1", "Counts starts and roll-backs of the run: 1 for the first start.", lambda known: known.lineage),
    _gauge("step", "steps", "Steps committed.", lambda known: known.step),
    _gauge("steps_wanted", "steps", "Steps that finish the run (`steps`).", lambda known: known.run.steps),
    _gauge("policy_version", "steps", "Newest published weight version: the step that made it.", _term("committed_step")),
    _gauge("last_step_timestamp_seconds", "Unix seconds", "When the last step was committed.", lambda known: known.last_step_s),
    _gauge("time_to_first_step_seconds", "seconds", "From the coordinator's start to its first commit.", lambda known: known.first_step_s),
    _gauge("prompts_per_step", "groups",
        "Groups that one step trains (`rollout.prompts_per_step`).", lambda known: known.run.rollout.prompts_per_step),
    _gauge("gpus_reserved", "GPUs", "GPUs that the run's actors hold.", lambda known: known.gpus),
    _gauge("gpu_seconds_per_trained_group", "seconds",
        "GPUs held, times the last step's wall time, by the groups it trained.", lambda known: known.gpu_s_per_group),
    _gauge("checkpoint_step", "steps",
        "Step of the newest whole checkpoint made since the coordinator's start.", lambda known: known.checkpoint_step),
    _gauge("checkpoint_timestamp_seconds", "Unix seconds", "When that checkpoint became whole.", lambda known: known.checkpoint_s),
    _counter("checkpoint_failures", "checkpoints", "Checkpoints that could not be written.", lambda known: known.checkpoint_failures),
    _gauge("mirror_step", "steps", "Step of the newest checkpoint that `checkpoint.mirror` holds.", _mirror("step")),
    _counter("mirror_failures", "attempts", "Copies to `checkpoint.mirror` that failed; each is tried again.", _mirror("failures")),
    _gauge("run_folder_free_bytes", "bytes", "Free space of the run folder's file system.", _disk(0)),
    _gauge("run_folder_size_bytes", "bytes", "Size of the run folder's file system.", _disk(1)),
)  # fmt: skip

_LEDGER: tuple[Exported, ...] = (
    _counter("groups_issued", "groups",
        "Groups issued since the run began. "
        "This and the other terms go back with the run to a checkpoint, which Prometheus reads as a counter's reset. "
        "issued = pending + leased + scored + trained + withheld, at every moment.", _term("issued")),
    _gauge("groups_pending", "groups", "Groups waiting for a worker.", _term("pending")),
    _gauge("groups_leased", "groups", "Groups being generated or scored by a worker.", _term("leased")),
    _gauge("groups_scored", "groups", "Groups scored and waiting for the learner.", _term("scored")),
    _counter("groups_trained", "groups", "Groups trained, each exactly once.", _term("trained")),
    Exported("groups_withheld", "counter", "groups", "Groups set aside and never trained, by reason.", _withheld, ("reason",)),
    _counter("groups_requeued", "groups", "Leases given back because a worker failed or ran past its deadline.", _term("requeued")),
    _counter("groups_late", "groups", "Reports refused because their lease was no longer current.", _term("late")),
    _counter("groups_rolled_back", "groups", "Groups whose progress was undone by a return to a checkpoint.", _term("rolled_back")),
    _gauge("ledger_capacity", "groups", "Groups that may be leased now without a token growing too old.", _term("capacity")),
    _gauge("oldest_lease_age_seconds", "seconds", "Age of the oldest lease.", _term("oldest_lease_age_s")),
    Exported("group_staleness", "histogram", "versions",
        "Age of each trained group's oldest token at its commit, in policy versions.", _ages),
    _gauge("staleness_bound", "versions",
        "Oldest age that is trained (`algorithm.max_staleness`).", lambda known: known.run.algorithm.max_staleness),
    _gauge("learner_wait_fraction", "fraction",
        "Share of the last step in which the learner waited for its batch.", _learner_wait_fraction),
)  # fmt: skip

_ROWS: tuple[Exported, ...] = tuple(
    _row(metric) for metric in METRICS if metric.section != "ledger" and metric.name not in _ELSEWHERE
)

_SUPERVISED: tuple[Exported, ...] = (
    Exported("workers", "gauge", "workers", "Rollout workers by state.", _workers, ("state",)),
    _gauge("workers_wanted", "workers", "Rollout workers that the run wants now.", lambda known: known.supervised.get("workers_wanted")),
    _gauge("workers_min", "workers", "Fewest workers (`rollout.workers.min`).", _range(0)),
    _gauge("workers_max", "workers", "Most workers (`rollout.workers.max`).", _range(1)),
    Exported("autosize_decisions", "counter", "decisions",
        "Changes of the wanted number of workers, by direction and reason.", _decisions, ("direction", "reason")),
    Exported("restarts", "counter", "restarts", "Actors replaced, by kind and by the cause of their end.", _restarts, ("kind", "cause")),
    _counter("weight_sync_failures", "failures",
        "Workers that ended because a weight version could not be loaded.", lambda known: known.supervised.get("sync_failures")),
    Exported("worker_version", "gauge", "steps", "Weight version that the worker holds.", _of_workers("version"), ("worker",)),
    Exported("worker_groups_in_flight", "gauge", "groups",
        "Groups that the worker generates or scores.", _of_workers("groups_in_flight"), ("worker",)),
    Exported("worker_generated_tokens", "counter", "tokens",
        "Completion tokens sampled by the worker.", _of_workers("completion_tokens_total"), ("worker",)),
    Exported("worker_judgements", "counter", "candidates",
        "Candidates scored by the worker.", _of_workers("judgements_total"), ("worker",)),
    Exported("worker_generate_seconds", "counter", "seconds",
        "Time with candidates in generation.", _of_workers("generate_s"), ("worker",)),
    Exported("worker_score_seconds", "counter", "seconds",
        "Time with candidates being scored; may overlap generation.", _of_workers("score_s"), ("worker",)),
    Exported("worker_idle_seconds", "counter", "seconds", "Time without any work.", _of_workers("idle_s"), ("worker",)),
    Exported("worker_weight_syncs", "counter", "versions", "Weight versions loaded.", _of_workers("weight_syncs"), ("worker",)),
    Exported("worker_weight_fallbacks", "counter", "versions",
        "Of these, those that the plan's transport did not bring and the object store did.", _of_workers("weight_fallbacks"), ("worker",)),
    Exported("worker_weight_sync_seconds", "counter", "seconds",
        "Fetching and loading weight versions.", _of_workers("weight_sync_s"), ("worker",)),
    Exported("worker_weight_pause_seconds", "counter", "seconds",
        "Generation paused for loading weight versions.", _of_workers("weight_sync_pause_s"), ("worker",)),
)  # fmt: skip

EXPORTED: tuple[Exported, ...] = _RUN + _LEDGER + _ROWS + _SUPERVISED


def table() -> str:
    """The table of docs/metrics.md."""
    lines = ["| name | type | labels | unit | what it says |", "|---|---|---|---|---|"]
    for each in EXPORTED:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        help_ = each.help.replace("|", "\\|")
        lines.append(f"| `{each.full_name}` | {each.kind} | {labels} | {each.unit} | {help_} |")
    return "\n".join(lines) + "\n"
