"""The state of a run, as the driver sees it once a second.

Written to `status.json` (`requests.py`); read by `dynalign status`, the progress view and the Prometheus
endpoint. In the file, the fields of `SupervisionStatus` stand beside those of `RunStatus`. A field that an
older version did not write gets its default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class JudgeCost:
    """What one judge has cost. Example: `JudgeCost(questions=3_900, prompt_tokens=1_800_000, seconds=41.0)`.

    Totals over the questions of one respondent or function, since its worker started.
    """

    questions: int = 0
    """Questions asked, or calls of the function."""
    failed: int = 0
    """Of these, calls that failed."""
    prompt_tokens: int = 0
    """Tokens read."""
    completion_tokens: int = 0
    """Tokens written."""
    seconds: float = 0.0
    """Summed over the questions, which overlap."""
    money: float | None = None
    """In the currency of the prices; None where nothing has a price."""

    def __add__(self, other: Self) -> Self:
        known = [each.money for each in (self, other) if each.money is not None]
        return type(self)(
            self.questions + other.questions,
            self.failed + other.failed,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            sum(known) if known else None,
        )


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One rollout worker. Example: `WorkerStatus("rollout-0", "serving", version=3, groups_in_flight=2)`.

    Figures are totals since the worker started, None before its first answer.
    """

    name: str
    """The worker's own name; no two workers of a run share one."""
    state: str
    """`waiting`, `placing`, `starting`, `serving` or `draining` (actors/supervision/worker_seat.py)."""
    version: int | None = None
    """Weight version that its engine holds: the step that made it."""
    groups_in_flight: int = 0
    """Groups that it generates or scores."""
    completion_tokens_total: int | None = None
    """Tokens sampled."""
    judgements_total: int | None = None
    """Candidates scored."""
    judge_failures_total: int | None = None
    """Of these, those for which `judge.function` raised or returned no score."""
    judge_failure: str = ""
    """Why, the last time, or why a group was withheld as `judge_unreachable`; empty before the first."""
    generate_s: float | None = None
    """Seconds with candidates in generation."""
    score_s: float | None = None
    """Seconds with candidates being scored; may overlap generation."""
    idle_s: float | None = None
    """Seconds without any work."""
    weight_sync_s: float | None = None
    """Seconds of fetching and loading weights."""
    weight_sync_pause_s: float | None = None
    """Seconds that generation paused for loading weights."""
    weight_syncs: int | None = None
    """Weight versions loaded."""
    weight_fallbacks: int | None = None
    """Of these, those that the object store had to bring."""
    judges: Mapping[str, JudgeCost] = field(default_factory=dict)
    """Who is asked for scores, by name → what that has cost."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a dictionary that may hold more."""
        known = _known(cls, values)
        costs = values.get("judges") or {}
        known["judges"] = {name: JudgeCost(**_known(JudgeCost, cost)) for name, cost in costs.items()}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """The account of one endpoint that the workers ask. Example: `EndpointStatus("big", 3, 1_200, 2, 410_000,
    0.35, 2_100.0)`."""

    name: str
    """Its name in `judge.endpoints`."""
    questions_in_flight: int
    """Questions that wait for the endpoint."""
    questions_total: int
    """Questions answered or refused since the gateway started, those that the journal answered included."""
    failures_total: int
    """Of these, the ones without an answer."""
    tokens_total: int
    """Tokens spent since the run began, those reserved for requests in flight included."""
    cost_total: float
    """Money spent since the run began, in the currency of the prices, reservations included."""
    tokens_per_s: float
    """Tokens spent per second of the last minute."""
    budget_reached: str = ""
    """Why the next question was not asked, once the budget is reached; empty before."""

    @property
    def account(self) -> str:
        """For people, on one line."""
        spent = f"{self.tokens_total:,} tokens and {self.cost_total:.4g} in money spent"
        line = f"{spent}, {self.tokens_per_s:,.0f} tokens/s, {self.questions_in_flight} questions waiting"
        return f"{line}; {self.budget_reached}" if self.budget_reached else line


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """`checkpoint.mirror`. Example: `MirrorStatus("s3://bucket/run", step=10, problem="", failures=0)`."""

    address: str
    """The run's folder in the storage."""
    step: int | None
    """Step of the newest checkpoint that it holds, None before the first."""
    problem: str
    """Why it lacks a checkpoint; empty while nothing is wrong."""
    failures: int
    """Attempts to copy that failed."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The coordinator's last decision on the number of workers. Example: `PoolStatus(1, 3, "the learner
    starves: …", "watching 3 steps: …")`."""

    decision: int = 0
    """Counts the decisions of this coordinator; 0: none yet."""
    wanted: int = 0
    """Workers that it decided on."""
    reason: str = ""
    """Why."""
    now: str = ""
    """What the figures of the last step say, whether or not they changed anything."""


@dataclass(frozen=True, slots=True)
class AlarmStatus:
    """An alarm that fires. Example: `AlarmStatus("injection", 81, 85, "pause", "share of … 0.11 …")`."""

    name: str
    """The alarm's name."""
    onset_step: int
    """The step at which what it saw began."""
    fired_step: int
    """The step after which it began to fire."""
    action: str
    """What it asked for: `warn`, `pause` or `stop`."""
    words: str
    """What was seen and what to do, on one line."""


@dataclass(frozen=True, slots=True)
class SupervisionStatus:
    """What the supervision knows. Example: `SupervisionStatus((WorkerStatus("rollout-0", "serving"),),
    1)`."""

    workers: tuple[WorkerStatus, ...] = ()
    """Every worker that is there or wanted."""
    workers_wanted: int = 0
    """Size that the pool has or is on its way to; 0: the run is ending."""
    workers_range: tuple[int, int] | None = None
    """Fewest and most workers (`rollout.workers`); None for a fixed number."""
    why_wanted: str = ""
    """Who or what decided on that size."""
    settling: bool = False
    """Whether workers are loading, draining or just asked for."""
    placing: tuple[str, ...] = ()
    """Workers for which no node has room yet."""
    gpus: float | None = None
    """GPUs that the run's actors hold; None where that is not known."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Deaths so far, by `kind/cause`."""
    sync_failures: int = 0
    """Workers that ended because a weight version could not be loaded."""
    mirror: MirrorStatus | None = None
    """None for a run without a mirror."""
    engines: tuple[WorkerStatus, ...] = ()
    """Every engine of `judge.pool`."""
    endpoints: tuple[EndpointStatus, ...] = ()
    """Every endpoint of the run; none before the gateway's first answer."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a dictionary that may hold more."""
        known = _known(cls, values)
        for each in ("workers", "engines"):
            known[each] = tuple(WorkerStatus.from_json(worker) for worker in values.get(each) or ())
        known["placing"] = tuple(values.get("placing") or ())
        bounds = values.get("workers_range")
        known["workers_range"] = None if bounds is None else (bounds[0], bounds[1])
        mirror = values.get("mirror")
        known["mirror"] = None if mirror is None else MirrorStatus(**_known(MirrorStatus, mirror))
        accounts = values.get("endpoints") or ()
        known["endpoints"] = tuple(EndpointStatus(**_known(EndpointStatus, each)) for each in accounts)
        return cls(**known)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run at one moment. Example: `RunStatus("quickstart", "running", step=3, steps=8, phase="learning
    step 4")`."""

    run: str
    """Name of the run."""
    state: str
    """`starting`, `running`, `paused`, `stopping`, `finished`, `interrupted` or `failed`."""
    step: int = 0
    """Steps committed."""
    steps: int = 0
    """Steps that finish the run."""
    lineage: int = 1
    """Counts starts and roll-backs."""
    policy_version: int = 0
    """Newest published weight version: the step that made it."""
    metrics: dict[str, Any] | None = None
    """Newest row of `metrics.jsonl`; None before the first."""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    """`LedgerActor.status`, counts in groups; empty before its first answer."""
    started_s: float | None = None
    """When the coordinator began, Unix seconds."""
    waiting_for: str = ""
    """What the next batch waits for."""
    phase: str = ""
    """What the coordinator does; empty between two steps."""
    notice: str = ""
    """What a person should know, such as a checkpoint that was not written; empty for nothing."""
    metrics_address: str | None = None
    """host:port of the Prometheus endpoint; None without one."""
    alarms: tuple[AlarmStatus, ...] = ()
    """The alarms that fire after the newest step."""
    pool: PoolStatus = PoolStatus()
    """The sizing of the pool."""
    supervision: SupervisionStatus = SupervisionStatus()
    """Workers, restarts and mirror."""

    def to_json(self) -> dict[str, Any]:
        """The content of `status.json`."""
        values = asdict(self)
        supervision = values.pop("supervision")
        merged: dict[str, Any] = values | supervision
        return merged

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the content of `status.json`."""
        known = _known(cls, values)
        for text in ("waiting_for", "phase", "notice"):
            known[text] = values.get(text) or ""
        known["alarms"] = tuple(
            AlarmStatus(**_known(AlarmStatus, each)) for each in values.get("alarms") or ()
        )
        known["pool"] = PoolStatus(**_known(PoolStatus, values.get("pool") or {}))
        known["supervision"] = SupervisionStatus.from_json(values)
        return cls(**{"run": "", "state": "starting"} | known)


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
