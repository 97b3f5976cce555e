"""Every kind of lease and its key. A new kind joins these unions; see README.md."""

from dynalign.rollout.ledger.evaluation_leases import EvaluationKey, EvaluationLease
from dynalign.rollout.ledger.probe_leases import ProbeKey, ProbeLease
from dynalign.rollout.ledger.values import GroupKey, Lease

AnyLease = Lease | EvaluationLease | ProbeLease
AnyKey = GroupKey | EvaluationKey | ProbeKey
