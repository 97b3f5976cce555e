"""The union of what `ledger.log` has lines of."""

from dynalign.rollout.ledger.evaluation_leases import EvaluationResult
from dynalign.rollout.ledger.values import Break, Commit, LineageStart, PromptChange, Scored

LogLine = LineageStart | Scored | Commit | Break | PromptChange | EvaluationResult
