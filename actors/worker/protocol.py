"""A rollout worker's methods, as supervision and coordinator call them, and what `stats` answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.run_folder.run_status import JudgeCost

WorkerProcess = tuple[str, int, float]
"""Host name, process id, and when the process began (Unix seconds)."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker has done since it started, and what it is doing now.

    Totals only grow while the worker lives; a worker that replaces it begins at 0 again.

        WorkerStats(
            name="rollout-0", version=12, groups_in_flight=8, completion_tokens_total=412_000,
            judgements_total=3_900, judge_failures_total=0, judge_failure="", generate_s=310.5,
            score_s=41.0, idle_s=2.25, weight_sync_s=9.5,
            weight_sync_pause_s=1.5, weight_syncs=12, weight_fallbacks=0,
        )
    """

    name: str
    """The worker's name, which no other worker of the run has."""
    version: int
    """Step of the policy in its engine."""
    groups_in_flight: int
    """Leases it is working on now, of every kind."""
    completion_tokens_total: int
    """Tokens sampled, those of withheld groups and held-out answers included."""
    judgements_total: int
    """Verdicts asked of the judge, second ones of the noise probe included."""
    judge_failures_total: int
    """Of these, those for which `judge.function` raised or returned no score."""
    judge_failure: str
    """Why, the last time, or why a group was withheld as `judge_unreachable`; empty before the first."""
    generate_s: float
    """Seconds in which at least one group was being generated."""
    score_s: float
    """Seconds in which at least one group was being scored."""
    idle_s: float
    """Seconds without any lease."""
    weight_sync_s: float
    """Seconds spent bringing new versions into the engine."""
    weight_sync_pause_s: float
    """Seconds of `weight_sync_s` in which generation stood still."""
    weight_syncs: int
    """Versions loaded."""
    weight_fallbacks: int
    """Versions that came through the object store because the transport offered had failed."""
    judges: Mapping[str, JudgeCost] = field(default_factory=dict)
    """Who is asked for scores, by name → what that has cost."""


class RolloutWorkerHandle(Protocol):
    """The handle of a `RolloutWorker`, which says what each method does and raises."""

    here: RemoteMethod[[], WorkerProcess]
    start: RemoteMethod[[], None]
    serve: RemoteMethod[[], None]
    stop: RemoteMethod[[], None]
    stats: RemoteMethod[[], WorkerStats]
    sleep: RemoteMethod[[], None]
    wake: RemoteMethod[[], None]
