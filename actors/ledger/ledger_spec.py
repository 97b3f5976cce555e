"""What the ledger is told once, and what it hands to the coordinator."""

from dataclasses import dataclass
from typing import NamedTuple

from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.evaluation_leases import EvaluationLease
from dynalign.rollout.ledger.values import Lease, LedgerSettings, ReportOutcome, ScoredGroup
from dynalign.rollout.weights.version import WeightVersion


@dataclass(frozen=True)
class LedgerSpec:
    """What the ledger is told once. `step`: the whole checkpoint to continue from, 0 for none.
    `prompts_count`: training prompts."""

    run: RunSettings
    run_folder: str
    lineage: int
    step: int
    prompts_count: int


class Answer(NamedTuple):
    """To a worker: what became of each group it reported, the leases it gets, and the newest version, which
    they name, if that is news."""

    outcomes: tuple[ReportOutcome, ...]
    leases: tuple[Lease | EvaluationLease, ...]
    version: WeightVersion | None


@dataclass(frozen=True)
class Batch:
    """One step's groups, taken at `version` = step - 1, and per group the handle of a cached copy of its
    bytes, None where the spool's file is the only one."""

    step: int
    version: int
    groups: tuple[ScoredGroup, ...]
    handles: tuple[object, ...]

    @property
    def group_ids(self) -> tuple[int, ...]:
        return tuple(group.group_id for group in self.groups)


def ledger_settings(run: RunSettings) -> LedgerSettings:
    """The rules' numbers. Workers bring their own bound on what they hold, so only the age bound limits
    what is in flight."""
    per_step, staleness = run.rollout.prompts_per_step, run.algorithm.max_staleness
    return LedgerSettings(
        prompts_per_step=per_step,
        steps=run.steps,
        max_staleness=staleness,
        max_in_flight=(staleness + 1) * per_step,
        max_refill=run.algorithm.max_refill,
        lease_s=run.deadlines.lease_s,
        poison_attempts=run.supervision.poison_attempts,
    )
