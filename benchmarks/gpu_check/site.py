"""What a stage is given, and where it leaves what it finds."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dynalign.benchmarks.gpu_check.outcomes import Measured
from dynalign.benchmarks.workload import Device
from dynalign.configs.errors import RunFailed


@dataclass(frozen=True)
class Site:
    """The place and the time of one stage, in a file that its process reads.

    Example:

        Site("facts", "cpu", "/check/stages", "/check/scratch", None, until_s=1767225600.0)
    """

    stage: str
    """Its name."""
    device: Device
    """Where engine and learner run."""
    notes: str
    """Folder of logs and figures, which are kept."""
    scratch: str
    """Folder of models and runs: tens of gigabytes. What belongs to one stage is removed after it."""
    real_model: str | None
    """Folder of a small trained model; None where none was given."""
    until_s: float
    """When the stage is ended, in Unix seconds."""

    def write(self) -> Path:
        """Writes it, and returns the file."""
        file = self.note("site.json")
        file.write_text(json.dumps(asdict(self)))
        return file

    @staticmethod
    def read(file: Path) -> "Site":
        return Site(**json.loads(file.read_text()))

    def note(self, name: str) -> Path:
        """A file of this stage that is kept: `note("train.log")`."""
        return Path(self.notes) / f"{self.stage}.{name}"

    @property
    def figures_file(self) -> Path:
        """A JSON object per line."""
        return self.note("figures.jsonl")

    @property
    def reason_file(self) -> Path:
        """Where a stage that cannot run on this machine says why."""
        return self.note("reason")

    @property
    def own(self) -> Path:
        """The stage's own folder in `scratch`."""
        return Path(self.scratch) / self.stage

    @property
    def common(self) -> Path:
        """The folder in `scratch` of what several stages use: models, recorded groups."""
        folder = Path(self.scratch) / "common"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def left_s(self) -> float:
        """Seconds until the stage is ended."""
        return self.until_s - time.time()

    def figure(self, **values: Measured) -> None:
        """Keeps figures, also of a stage that is killed in the next moment."""
        with self.figures_file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(values, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())


def visible_gpus(variable: str | None, count: int) -> list[str]:
    """The first `count` GPUs, as CUDA_VISIBLE_DEVICES names them. variable: its present value; None where it
    is not set, and then GPUs have their numbers."""
    named = [name.strip() for name in (variable or "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


def require(holds: bool, otherwise: str) -> None:
    """Raises RunFailed with the sentence `otherwise` unless the condition holds."""
    if not holds:
        raise RunFailed(otherwise)
