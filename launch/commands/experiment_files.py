"""The folder of an experiment: what it holds, and how far each of its runs has come.

FOLDER/
  plan.json           what was declared before the first run
  runs/ARM-sSEED/     the run folder of each arm and seed, as any other run has it
  runs/ARM-sSEED.log  what `dynalign train` printed
  runs/ARM-sSEED.end  how it ended the last time, in JSON
  judged.json         scores of held-out answers by the third judge
  planted.json        scores of answers with a planted bias, by every rubric
  answers.sqlite      what that judge was asked
  report.html, report.md, report.json
  lock                held by the command that works on it
"""

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.evaluation.experiments.run_figures import RunFigures, RunOutcome, read_run
from dynalign.run_folder import durable, layout, owner

LOCK = "lock"
"""Its name in the folder."""
LAST_LINE_BYTES = 4096
"""Of a log: enough for its last line."""


class Named(Protocol):
    """What has a name of its own in the experiment's folder."""

    @property
    def name(self) -> str:
        """Letters, digits, `.`, `_` and `-`."""


@dataclass(frozen=True)
class ArmRun:
    """One run of an experiment: `ArmRun("samples-g4", 2)`."""

    arm: str
    """The arm's name."""
    seed: int
    """The seed."""

    @property
    def name(self) -> str:
        """Of the run and its folder."""
        return f"{self.arm}-s{self.seed}"


@dataclass(frozen=True)
class RunEnd:
    """How a process of a run ended: `RunEnd(1, "EngineError: out of memory", 1.7e9)`."""

    code: int
    """Its exit code; negative for a signal."""
    said: str
    """Its last line, or why it was ended."""
    at_s: float
    """When, in Unix seconds."""


@dataclass(frozen=True)
class ExperimentFiles:
    """Where everything of an experiment is: `ExperimentFiles(Path("runs/quickstart-group-size"))`."""

    folder: Path
    """The experiment's folder."""

    @property
    def plan(self) -> Path:
        """The declared plan."""
        return self.folder / "plan.json"

    @property
    def runs(self) -> Path:
        """The folder of the run folders."""
        return self.folder / "runs"

    @property
    def judged(self) -> Path:
        """The third judge's scores."""
        return self.folder / "judged.json"

    @property
    def planted(self) -> Path:
        """Scores of answers with a planted bias."""
        return self.folder / "planted.json"

    @property
    def answers(self) -> Path:
        """What the third judge was asked."""
        return self.folder / layout.ANSWERS

    @property
    def lock(self) -> Path:
        """Held by the command that works on the experiment."""
        return self.folder / LOCK

    def report(self, kind: str) -> Path:
        """The report as `html`, `md` or `json`."""
        return self.folder / f"report.{kind}"

    def run(self, run: Named) -> Path:
        """The run folder."""
        return self.runs / run.name

    def log(self, run: Named) -> Path:
        """What the run's process has printed."""
        return self.runs / f"{run.name}.log"

    def _end(self, run: Named) -> Path:
        return self.runs / f"{run.name}.end"

    def begun(self, run: Named) -> None:
        """Forgets how the run ended before."""
        self._end(run).unlink(missing_ok=True)

    def ended(self, run: Named, code: int, cause: str = "") -> RunEnd:
        """Keeps how the run's process ended. cause: why it was ended, instead of its last line."""
        end = RunEnd(code, cause or last_line(self.log(run), f"run {run.name} failed:"), time.time())
        durable.write(self._end(run), json.dumps(asdict(end), ensure_ascii=False))
        return end

    def end(self, run: Named) -> RunEnd | None:
        """How the run's process ended the last time; None while it runs, or if nobody saw its end."""
        with suppress(FileNotFoundError):
            try:
                return RunEnd(**json.loads(self._end(run).read_text("utf-8")))
            except (ValueError, TypeError) as error:
                raise RecordError(f"{self._end(run)}: not the end of a run; remove it") from error
        return None

    def outcome(self, run: Named, now_s: float) -> RunOutcome:
        """How far a run has come, by its files. now_s: Unix seconds. Raises RecordError for a damaged
        file."""
        from dynalign.launch.summary import read_summary

        folder = self.run(run)
        summary = read_summary(folder)
        if summary is not None and summary.state == "finished":
            return RunOutcome("finished", summary.step, summary.wall_s)
        step = 0 if summary is None else summary.step
        if owner.is_driven(folder, now_s):
            return RunOutcome("running", step)
        end = self.end(run)
        if end is not None and end.code not in (0, 130):
            cause = summary.cause if summary is not None and summary.cause else end.said
            return RunOutcome("failed", step, None, cause or f"exit code {end.code}")
        begun = (folder / layout.CONFIG).exists()
        return RunOutcome("interrupted" if begun else "not started", step)

    def figures(self, runs: Sequence[ArmRun], known: dict[ArmRun, RunFigures]) -> list[RunFigures]:
        """What the runs have measured. A run that has not finished gives its state alone, since a part of a
        run is no run; one with a damaged file is a failed one.

        known: what was read of finished runs before, which does not change; what is read now is added."""
        found = []
        for run in runs:
            if run in known:
                found.append(known[run])
                continue
            try:
                outcome = self.outcome(run, time.time())
                if outcome.state == "finished":
                    known[run] = read_run(self.run(run), run.arm, run.seed, outcome)
                    found.append(known[run])
                else:
                    found.append(RunFigures(run.arm, run.seed, outcome))
            except RecordError as error:
                found.append(RunFigures(run.arm, run.seed, RunOutcome("failed", 0, None, str(error))))
        return found


@contextmanager
def held(files: ExperimentFiles) -> Iterator[None]:
    """Keeps other commands out of an experiment's folder until the end of this one, or its death.

    Raises UserError while another one works on it."""
    files.folder.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
    with files.lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            rule = "another command works on this experiment"
            remedy = "wait for its end, or name another folder"
            raise UserError([Mistake("--out", str(files.folder), rule, remedy)]) from error
        yield


def last_line(log: Path, cause: str = "") -> str:
    """The last line of a log that is not empty, without control characters; empty without one.

    cause: how a line begins that says why it ended; the last one of these is taken, where there is one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_LINE_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    said = [line for line in lines if line]
    causes = [line.removeprefix(cause).strip() for line in said if cause and line.startswith(cause)]
    last = [*said[-1:], *causes[-1:]][-1] if said else ""
    return "".join(each for each in last if each.isprintable())
