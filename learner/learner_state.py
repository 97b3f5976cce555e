"""The learner's state beside weights and optimizer: the step trained last, its groups and its report.

The group ids tell after a crash whether the ledger committed the last step. The report makes `run`
idempotent: a step that is requested twice is trained once, and returns the same report both times.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dynalign.configs.errors import CheckpointError
from dynalign.run_folder import layout

FORMAT = 1

Report = dict[str, float | int | None]
"""The metrics of one step under their names in `metrics.jsonl`; None where a metric does not apply."""


@dataclass(frozen=True)
class LearnerState:
    """What a checkpoint's `learner.json` holds. The default is the state before the first step.

    Example: ``LearnerState(step=12, group_ids=(88, 89, 91), report={"loss": -0.012, "kl": None})``
    """

    step: int = 0
    """The step trained last, counted from 1; 0 is the initial policy."""
    group_ids: tuple[int, ...] = ()
    """The groups that this step trained."""
    report: Report = field(default_factory=dict)
    """What `Learner.run` returned for this step."""

    def write(self, folder: Path) -> None:
        """Write the state into `folder`, and create it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / layout.LEARNER_STATE).write_text(json.dumps({"format": FORMAT} | asdict(self)))

    @staticmethod
    def read(folder: Path) -> "LearnerState":
        """Read the state from `folder`.

        Raises CheckpointError if the file is missing, damaged, or has another format.
        """
        file = folder / layout.LEARNER_STATE
        try:
            data = json.loads(file.read_text())
            if data["format"] != FORMAT:
                raise CheckpointError(f"{file} has format {data['format']!r}, this version reads {FORMAT}")
            return LearnerState(data["step"], tuple(data["group_ids"]), data["report"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error!r}") from error
