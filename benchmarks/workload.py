"""The work on which everything is measured: the settings and prompts of a shipped run, `quickstart` on CPUs
and `single-gpu` on a GPU.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.rollout.group_maker import GroupTask
from dynalign.rollout.prompts import PromptOrder, run_prompts

Device = Literal["cpu", "gpu"]
CONFIGS: dict[Device, str] = {"cpu": "quickstart", "gpu": "single-gpu"}
"""The shipped run whose work is measured."""
QUICK_OVERRIDES = ("rollout.prompts_per_step=2", "rollout.group_size=4", "rollout.max_completion_tokens=16")
_FILE = "workload.json"


@dataclass(frozen=True, slots=True)
class Workload:
    """What every job reads before it measures."""

    model_folder: Path
    """The model, in the form of transformers."""
    scratch: Path
    """A folder on disk that all jobs share."""
    memory: Path
    """A folder in shared memory."""
    quick: bool
    """Whether this is a small trial."""
    device: Device = "cpu"
    """Where engine and learner run."""
    chosen: tuple[str, ...] = ()
    """Overrides of the shipped run, as `key=value`."""

    @property
    def runs(self) -> int:
        """Samples of every figure. On a GPU fewer do: others disturb it less than a shared core, and it costs
        more."""
        return 2 if self.quick else 5 if self.device == "cpu" else 3

    def overrides(self, *more: str) -> tuple[str, ...]:
        # Any model may be measured, one that was never trained too: scores are timed, not used.
        return (
            *(QUICK_OVERRIDES if self.quick else ()),
            "date=2026-01-01",
            "judge.min_digit_mass=0",
            *self.chosen,
            *more,
        )

    def settings(self, *more: str) -> RunSettings:
        """The settings of the shipped run, with more `key=value` overrides."""
        return load_run(CONFIGS[self.device], self.overrides(*more)).settings

    def draws(self) -> list[GroupTask]:
        """The first step's groups."""
        run = self.settings()
        prompts = run_prompts(run.prompts).train
        order = PromptOrder(len(prompts), run.seed)
        return [
            GroupTask(1, number, 1, 0, prompts[order.at(number).index], 0.0)
            for number in range(run.rollout.prompts_per_step)
        ]

    @property
    def groups_file(self) -> Path:
        """Where the job `record` leaves the first step's groups, as Arrow."""
        return self.scratch / "groups.arrow"

    def samples_file(self, job: str) -> Path:
        return self.scratch / f"{job}.json"

    def reason_file(self, job: str) -> Path:
        """Where a job that cannot run here writes the reason."""
        return self.scratch / f"{job}.reason"

    def write(self) -> None:
        (self.scratch / _FILE).write_text(
            json.dumps([str(self.model_folder), str(self.memory), self.quick, self.device, self.chosen])
        )

    @staticmethod
    def read(scratch: Path) -> "Workload":
        model_folder, memory, quick, device, chosen = json.loads((scratch / _FILE).read_text())
        return Workload(Path(model_folder), scratch, Path(memory), quick, device, tuple(chosen))
