"""A simulated learner behind the real rank actor: it fetches every group's bytes as the learner does, then
sleeps.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dynalign.actors.learner.learner_rank import LearnerRank, LearnerSpec
from dynalign.rollout.weights.version import WeightVersion

if TYPE_CHECKING:
    from dynalign.learner.learner import Learner


class RecordedLearner:
    """What `LearnerRank` asks of a learner. learn_s: how long a step takes."""

    def __init__(self) -> None:
        self.step = 0
        self.learn_s = 0.0
        self._trained: dict[int, tuple[int, ...]] = {}

    def prepare(
        self, step: int, payloads: Sequence[bytes], origins: Sequence[str], present_fraction: float
    ) -> None:
        """origins: spool names, which carry the group ids."""
        if step not in self._trained:
            self._trained = {step: tuple(int(name.split("-")[1]) for name in origins)}

    def run(self, step: int) -> dict[str, float | int | None]:
        if step > self.step:
            time.sleep(self.learn_s)
        self.step = step
        return {"learn_s": self.learn_s}

    def trained_group_ids(self, step: int) -> tuple[int, ...]:
        return self._trained[step]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"none")

    def export(self, folder: Path) -> None:
        self.save(folder)

    def wake(self) -> None:
        """There is no device."""


class SimulatedRank(LearnerRank):
    """The real actor, with its learner exchanged."""

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        self._recorded = RecordedLearner()
        self._learner = cast("Learner", self._recorded)

    def start(self, address: str, port: int) -> None:
        """There is nobody to meet."""

    def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        """No tensors: how they travel is measured elsewhere."""
        return WeightVersion(self._spec.lineage, step, b"", (), 0), 0.0

    def pace(self, learn_s: float) -> None:
        self._recorded.learn_s = learn_s
