"""The handle of a learner rank's actor, typed for those that call it. `LearnerRank` implements the
methods."""

from collections.abc import Sequence
from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.learner.learner_state import Report
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion

StepReport = Report
"""What one GRPO step measured, by metric name."""


class LearnerRankActor(Protocol):
    """One rank. Calls come one at a time; each can be repeated for the same step."""

    rendezvous: RemoteMethod[[], tuple[str, int]]
    """Address and free port of this rank's node."""
    start: RemoteMethod[[str, int], None]
    """(address, port of rank 0): join the other ranks."""
    prepare: RemoteMethod[[int, Sequence[ScoredGroup], Sequence[object], float], None]
    """(step, groups, their cached objects, share of the wanted groups that these are)."""
    run: RemoteMethod[[int], tuple[Report, tuple[int, ...]]]
    """(step) → its metrics, and the ids of the groups that it trained."""
    trained_step: RemoteMethod[[], int]
    """The step trained last."""
    publish: RemoteMethod[[int], tuple[WeightVersion, float] | None]
    """(step) → the version that it made, and the seconds that publishing took."""
    fallback: RemoteMethod[[int], WeightVersion | None]
    """(step) → the version in the object store."""
    save: RemoteMethod[[str, int], tuple[int, ...]]
    """(folder, step) → the ids of the groups that the step trained."""
    load: RemoteMethod[[str], int]
    """(folder) → the checkpoint's step."""
