"""What the ledger's actor is given at its start, and what it answers."""

from dataclasses import dataclass
from typing import NamedTuple

from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.values import LedgerSettings, ReportOutcome, ScoredGroup
from dynalign.rollout.weights.version import WeightVersion


@dataclass(frozen=True)
class LedgerSpec:
    """The arguments of one ledger: LedgerSpec(run, "runs/quickstart", lineage=3, step=10,
    prompts_count=512)."""

    run: RunSettings
    """The settings of the run."""
    run_folder: str
    """Path of the run folder, the same on every node."""
    lineage: int
    """The lineage that the ledger serves."""
    step: int
    """Step of the whole checkpoint to continue from; 0 for none."""
    prompts_count: int
    """Prompts in the training split."""
    prompts_hash: str = ""
    """Content hash of all prompts; sets that are added later name it."""


class LedgerAnswer(NamedTuple):
    """The answer to a worker: LedgerAnswer(outcomes=("scored",), leases=(Lease(...),), version=None)."""

    outcomes: tuple[ReportOutcome, ...]
    """What became of each group that it reported, in its order."""
    leases: tuple[AnyLease, ...]
    """What it is to work on."""
    version: WeightVersion | None
    """The newest version, which the leases name; None if the worker knows it, or does not ask."""


@dataclass(frozen=True)
class Batch:
    """One step's groups: Batch(step=5, version=4, groups=(ScoredGroup(...), ...), handles=(None, ...))."""

    step: int
    """The step that is to train them."""
    version: int
    """The version it is taken at, step - 1."""
    groups: tuple[ScoredGroup, ...]
    """P groups; fewer only where `take_present` was asked."""
    handles: tuple[object, ...]
    """Per group a reference to a copy of its file in the object store; None where the spool's file is the
    only one."""

    @property
    def group_ids(self) -> tuple[int, ...]:
        return tuple(group.group_id for group in self.groups)


def ledger_settings(run: RunSettings) -> LedgerSettings:
    """The rules' numbers of a run."""
    return LedgerSettings(
        prompts_per_step=run.rollout.prompts_per_step,
        steps=run.steps,
        max_staleness=run.algorithm.max_staleness,
        max_refill=run.algorithm.max_refill,
        lease_s=run.deadlines.lease_s,
        poison_attempts=run.supervision.poison_attempts,
    )
