"""How the Prometheus endpoint reads each value off what it knows of a run (`Known`).

The names, types and texts are in the table of `exported_metrics.py`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.values import REPLACED
from dynalign.run_folder.metric_names import Metric
from dynalign.run_folder.run_status import (
    EndpointStatus,
    JudgeCost,
    MirrorStatus,
    SupervisionStatus,
    WorkerStatus,
)

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, without that of `run`, and the value."""

STATES = ("starting", "running", "paused", "stopping", "finished", "interrupted", "failed")
WORKER_STATES = ("waiting", "placing", "starting", "serving", "draining")
CAUSES = {
    "worker": ("died", "hung", "memory", "failed", "weights", "storage"),
    "ledger": ("died", "hung", "memory"),
    "learner": ("died", "hung", "memory", "failed"),
    "coordinator": ("died", "hung", "memory"),
}
"""Kind of actor → causes that are counted from 0 on, so that the first one already is an increase."""


@dataclass(frozen=True)
class Known:
    """What the endpoint knows. It is replaced as a whole, so that a scrape always sees one moment."""

    run: RunSettings
    """Its settings."""
    lineage: int
    """Counts starts and roll-backs."""
    started_s: float
    """When the coordinator began, Unix seconds."""
    state: str = "starting"
    """One of STATES."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """Newest row of `metrics.jsonl`."""
    evaluated: Mapping[str, float] = field(default_factory=dict)
    """Newest measured figure of each metric that begins as in `EVALUATED`."""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    """`LedgerActor.status`; empty while it is not known."""
    supervision: SupervisionStatus | None = None
    """None while it is not known."""
    decisions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Changes of the wanted number of workers, by direction and reason."""
    ages: Counter[int] = field(default_factory=Counter)
    """Trained groups by the age of their oldest token at their commit, in versions."""
    last_step_s: float | None = None
    """When the last step was committed, Unix seconds."""
    first_step_s: float | None = None
    """Seconds from the start to the first commit."""
    looked_s: float | None = None
    """When the supervision last looked, Unix seconds."""
    gpu_s_per_group: float | None = None
    """GPU seconds per trained group of the last step."""
    checkpoint_step: int | None = None
    """Step of the newest whole checkpoint."""
    checkpoint_s: float | None = None
    """When it became whole, Unix seconds."""
    steps_skipped: int = 0
    """Steps whose loss or gradient was not finite, and that changed nothing."""
    checkpoint_failures: int = 0
    """Checkpoints that could not be written."""
    versions: tuple[str, ...] = ()
    """Of dynalign, ray and vllm."""
    disk: Callable[[], tuple[int, int] | None] = lambda: None
    """Free and all bytes of the run folder's file system; None while it is away."""

    @property
    def gpus(self) -> float | None:
        """GPUs that the run's actors hold; None where the supervision has not said so."""
        if self.run.placement.device == "cpu":
            return 0.0
        return None if self.supervision is None else self.supervision.gpus

    @property
    def step(self) -> int | None:
        """Committed. What the ledger said last is up to a second old, and behind the row or checkpoint of a
        step that has just ended."""
        known = (self.ledger.get("committed_step"), self.row.get("step"), self.checkpoint_step)
        return max((step for step in known if step is not None), default=None)

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


def one(value: Value) -> Callable[[Known], Samples]:
    def samples(known: Known) -> Samples:
        found = value(known)
        return [] if found is None else [((), float(found))]

    return samples


def gauge(name: str, unit: str, help_: str, value: Value) -> Exported:
    return Exported(name, "gauge", unit, help_, one(value))


def counter(name: str, unit: str, help_: str, value: Value) -> Exported:
    return Exported(name, "counter", unit, help_, one(value))


def term(name: str) -> Value:
    return lambda known: known.ledger.get(name)


def of_mirror(of: Callable[[MirrorStatus], int | None]) -> Value:
    def value(known: Known) -> int | None:
        mirror = None if known.supervision is None else known.supervision.mirror
        return None if mirror is None else of(mirror)

    return value


def of_supervision(of: Callable[[SupervisionStatus], int]) -> Value:
    return lambda known: None if known.supervision is None else of(known.supervision)


def prometheus_name(metric: Metric) -> str:
    """The name of a row's metric in base units: `learn_s` → `learn_seconds`, `judgements_per_s` →
    `judgements_per_second`."""
    return re.sub("_s$", "_second" if metric.unit.endswith("/s") else "_seconds", metric.name)


EVALUATED = ("heldout_", "capability_change")
"""How metrics begin that only some steps measure: their newest figure stays."""


def of_row(metric: Metric) -> Exported:
    unit = {"s": "seconds", "tokens/s": "tokens per second", "1/s": "per second"}.get(
        metric.unit, metric.unit
    )
    if metric.name.startswith(EVALUATED):
        return gauge(
            prometheus_name(metric),
            unit,
            metric.help + " The newest evaluation.",
            lambda known: known.evaluated.get(metric.name),
        )
    return gauge(prometheus_name(metric), unit, metric.help, lambda known: known.row.get(metric.name))


ELSEWHERE = {"step", "lineage", "policy_version", "workers", "worker_restarts"}
"""Names of the row that are told more often than once a step; with the ledger's terms."""


def withheld(known: Known) -> Samples:
    if known.ledger:
        by_reason = dict.fromkeys(sorted(REPLACED), 0) | known.ledger["withheld_by_reason"]
        yield from (((reason,), count) for reason, count in by_reason.items())


def restarts(known: Known) -> Samples:
    if known.supervision is not None:
        counts: dict[tuple[str, ...], int] = {
            (kind, cause): 0 for kind, causes in CAUSES.items() for cause in causes
        }
        counts |= {tuple(key.split("/", 1)): count for key, count in known.supervision.restarts.items()}
        yield from counts.items()


def workers(known: Known) -> Samples:
    if known.supervision is not None:
        counts = Counter(worker.state for worker in known.supervision.workers)
        yield from (((state,), counts[state]) for state in WORKER_STATES)


def engines(known: Known) -> Samples:
    """Without a pool there is no sample."""
    if known.supervision is not None and known.supervision.engines:
        counts = Counter(engine.state for engine in known.supervision.engines)
        yield from (((state,), counts[state]) for state in WORKER_STATES)


def of_workers(of: Callable[[WorkerStatus], float | None]) -> Callable[[Known], Samples]:
    """A figure of each worker; one that has not answered yet has none."""

    def samples(known: Known) -> Samples:
        for each in known.supervision.workers if known.supervision else ():
            if (value := of(each)) is not None:
                yield (each.name,), value

    return samples


def of_endpoints(of: Callable[[EndpointStatus], float]) -> Callable[[Known], Samples]:
    """A figure of each endpoint."""

    def samples(known: Known) -> Samples:
        yield from (
            ((each.name,), of(each)) for each in (known.supervision.endpoints if known.supervision else ())
        )

    return samples


def of_judges(of: Callable[[JudgeCost], float | None]) -> Callable[[Known], Samples]:
    """A figure of each judge of each worker; one without such a figure has none."""

    def samples(known: Known) -> Samples:
        for worker in known.supervision.workers if known.supervision else ():
            for name, cost in worker.judges.items():
                if (value := of(cost)) is not None:
                    yield (worker.name, name), value

    return samples


def states(known: Known) -> Samples:
    return [((state,), float(known.state == state)) for state in STATES]


def ages(known: Known) -> Samples:
    """Cumulative buckets, then the sum, which prometheus-client wants apart."""
    for bound in known.age_buckets:
        yield (str(float(bound)),), sum(count for age, count in known.ages.items() if age <= bound)
    yield ("+Inf",), sum(known.ages.values())


def workers_bound(index: int) -> Value:
    def bound(known: Known) -> int | None:
        workers = known.run.rollout.workers
        return (workers.min, workers.max)[index]

    return bound


def learner_wait_fraction(known: Known) -> float | None:
    wait_s = known.row.get("learner_wait_s")
    step_s = known.row.get("step_s")
    return None if wait_s is None or not step_s else min(1.0, wait_s / step_s)


def disk_bytes(index: int) -> Value:
    def bytes_(known: Known) -> int | None:
        sizes = known.disk()
        return None if sizes is None else sizes[index]

    return bytes_


def decisions(known: Known) -> Samples:
    return known.decisions.items()
