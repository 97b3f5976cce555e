"""What the learner remembers beside weights and optimizer: the step it trained last, from which groups, and its report.

With the group ids, learner and ledger can tell after a crash whether the last step was committed; with the report, a step that is
asked for twice is answered twice and trained once.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dynalign.configs.errors import CheckpointError
from dynalign.run_folder import layout

FORMAT = 1

Report = dict[str, float | int | None]


@dataclass(frozen=True)
class LearnerState:
    """After step `step`, trained on `group_ids`."""

    step: int = 0
    group_ids: tuple[int, ...] = ()
    report: Report = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / layout.LEARNER_STATE).write_text(json.dumps({"format": FORMAT} | asdict(self)))

    @staticmethod
    def read(folder: Path) -> "LearnerState":
        """Raises CheckpointError where the file is missing, damaged, or of another format."""
        try:
            data = json.loads((folder / layout.LEARNER_STATE).read_text())
            if data["format"] != FORMAT:
                raise CheckpointError(
                    f"{folder / layout.LEARNER_STATE} has format {data['format']!r}, this version reads {FORMAT}"
                )
            return LearnerState(data["step"], tuple(data["group_ids"]), data["report"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / layout.LEARNER_STATE} cannot be read: {error!r}") from error
