"""Runs stages one after the other, each in a process of its own, and keeps what each one found.

done before ─► named, not run again
less time left than it needs ─► skipped, and a later one that needs less may still run
else ─► its process, ended at its deadline with all that it has started ─► one line in results.jsonl
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynalign.benchmarks.command_line import INTERRUPTED
from dynalign.benchmarks.gpu_check.outcomes import (
    Origin,
    StageOutcome,
    Status,
    append,
    newest,
    read,
    read_figures,
)
from dynalign.benchmarks.gpu_check.site import Site
from dynalign.benchmarks.gpu_check.stages import Stage
from dynalign.benchmarks.process import run_python
from dynalign.configs.errors import DeadlineExceeded, RunFailed

RESULTS = "results.jsonl"

Command = Callable[[Stage, Path], list[str]]
"""The arguments of the Python that runs a stage, given the file of its site."""
Tell = Callable[[str], None]
Clock = Callable[[], float]


def stage_command(stage: Stage, site: Path) -> list[str]:
    """Runs the stage's module."""
    return ["-m", "dynalign.benchmarks.gpu_check.stage", stage.module, str(site)]


@dataclass(frozen=True)
class Check:
    """One call of the check.

    Example: `Check(Path("/check"), Path("/check/scratch"), None, origin, 1767225600.0)`.
    """

    out: Path
    """Folder of results, logs and figures."""
    scratch: Path
    """Folder of models and runs."""
    real_model: Path | None
    """Folder of a small trained model."""
    origin: Origin
    """What the results belong to."""
    until_s: float
    """When the last stage is ended, in Unix seconds."""
    command: Command = stage_command
    """What runs a stage."""
    tell: Tell = lambda line: None
    """Says what is going on."""
    now_s: Clock = time.time
    """Unix seconds."""

    @property
    def results(self) -> Path:
        """The file of the results."""
        return self.out / RESULTS

    def run(self, stages: Sequence[Stage]) -> list[StageOutcome]:
        """Runs what is not done; returns the present outcome of every stage, in order.

        Raises KeyboardInterrupt where it was interrupted, after the line of the stage that was going on."""
        done = newest(read(self.results), self.origin)
        return [self._one(stage, done) for stage in stages]

    def _one(self, stage: Stage, done: Mapping[str, StageOutcome]) -> StageOutcome:
        before = done.get(stage.name)
        if before is not None and before.status == "passed":
            self.tell(f"{stage.name}: done before")
            return before
        left_s = self.until_s - self.now_s()
        limits = stage.limits(self.origin.device)
        if left_s < limits.least_s:
            cause = f"{max(left_s, 0.0):.0f} s are left, and it takes at least {limits.least_s:.0f}"
            outcome = self._outcome(stage, "skipped", 0.0, {}, cause)
        else:
            self.tell(f"{stage.name}: {stage.what} …")
            outcome = self._started(stage, min(limits.deadline_s, left_s))
        append(self.results, outcome)
        self.tell(f"{stage.name}: {outcome.status} after {outcome.seconds:.0f} s {outcome.cause}".rstrip())
        return outcome

    def _started(self, stage: Stage, deadline_s: float) -> StageOutcome:
        site = self._site(stage, deadline_s)
        for file in (site.figures_file, site.reason_file):
            file.unlink(missing_ok=True)
        shutil.rmtree(site.own, ignore_errors=True)
        site.own.mkdir(parents=True)
        started_s = time.monotonic()
        status: Status = "passed"
        cause = ""
        try:
            run_python(self.command(stage, site.write()), site.note("log"), deadline_s)
        except DeadlineExceeded:
            status = "deadline"
            cause = f"it was ended after {deadline_s:.0f} s"
        except RunFailed as error:
            status = "failed"
            cause = str(error)
        except KeyboardInterrupt:
            append(self.results, self._ended(stage, site, "failed", started_s, INTERRUPTED))
            raise
        finally:
            with suppress(OSError):  # what is left of it costs disk alone, and is removed by the next call
                shutil.rmtree(site.own)
        if status == "passed" and site.reason_file.exists():
            status = "skipped"
            cause = site.reason_file.read_text()
        return self._ended(stage, site, status, started_s, cause)

    def _ended(self, stage: Stage, site: Site, status: Status, started_s: float, cause: str) -> StageOutcome:
        seconds = round(time.monotonic() - started_s, 1)
        return self._outcome(stage, status, seconds, read_figures(site.figures_file), cause)

    def _outcome(
        self,
        stage: Stage,
        status: Status,
        seconds: float,
        figures: Mapping[str, float | int | str],
        cause: str,
    ) -> StageOutcome:
        return StageOutcome(
            stage.name, status, seconds, dict(figures), " ".join(cause.split()), self.origin, self.now_s()
        )

    def _site(self, stage: Stage, deadline_s: float) -> Site:
        notes = self.out / "stages"
        notes.mkdir(exist_ok=True)
        model = None if self.real_model is None else str(self.real_model)
        until_s = self.now_s() + deadline_s
        return Site(stage.name, self.origin.device, str(notes), str(self.scratch), model, until_s)
