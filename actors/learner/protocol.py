"""A learner rank's methods, as the coordinator's `LearnerGroup` calls them."""

from collections.abc import Sequence
from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion

StepReport = dict[str, float | int | None]
"""What one GRPO step measured, by metric name."""


class LearnerRankActor(Protocol):
    """The actor's handle. `LearnerRank` says what each method does and raises."""

    rendezvous: RemoteMethod[[], tuple[str, int]]
    start: RemoteMethod[[str, int], None]
    prepare: RemoteMethod[[int, Sequence[ScoredGroup], Sequence[object], float], None]
    run: RemoteMethod[[int], tuple[StepReport, tuple[int, ...]]]
    publish: RemoteMethod[[int], tuple[WeightVersion, float] | None]
    save: RemoteMethod[[str, int], tuple[int, ...]]
    load: RemoteMethod[[str], int]
