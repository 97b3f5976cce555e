"""`runs/<name>/`: where a run's folder is, how far the run in it has come, and the resolved `config.yaml` in it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgpack

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.configs.load import LoadedRun, listed
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.schema import RunSettings
from dynalign.launch.ray_cluster import ray_job
from dynalign.learner.learner_state import LearnerState
from dynalign.rollout.ledger import log as ledger_log
from dynalign.rollout.ledger.state import unpack
from dynalign.rollout.ledger.values import Scored
from dynalign.run_folder import durable, layout
from dynalign.run_folder.checkpoint import newest_whole, read_manifest

if TYPE_CHECKING:
    from dynalign.launch.summary import Summary


State = Literal["new", "interrupted", "finished"]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, there or not."""

    path: Path

    def state(self) -> State:
        """`new`: no run was ever started here. Raises RecordError for a summary that is none."""
        summary = self.path / layout.SUMMARY
        if summary.exists():
            try:
                if json.loads(summary.read_text("utf-8"))["state"] == "finished":
                    return "finished"
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(f"{summary}: not a summary ({error!r})") from error
        return "interrupted" if (self.path / layout.CONFIG).exists() else "new"

    def finished(self, settings: RunSettings) -> "Summary | None":
        """How the run ended, if there is nothing left to do; None for one that is to be started, continued, or given more steps."""
        if settings.resume == "never" or self.state() != "finished":
            return None
        from dynalign.launch.summary import read_summary

        summary = read_summary(self.path)
        return summary if summary is not None and summary.step >= settings.steps else None

    def newest_checkpoint(self) -> Path | None:
        """Raises CheckpointError when the newest one is damaged."""
        return newest_whole(self.path / layout.CHECKPOINTS)

    def newest_lineage(self) -> int:
        """The newest lineage that the ledger's log or a checkpoint knows; 0 for a new run. Raises RecordError, CheckpointError."""
        log, checkpoint = self.path / layout.LEDGER_LOG, self.newest_checkpoint()
        logged = (
            [line.lineage for line in ledger_log.read(log) if not isinstance(line, Scored)]
            if log.exists()
            else []
        )
        return max([0, *logged, *([read_manifest(checkpoint).lineage] if checkpoint else [])])

    def check_formats(self) -> None:
        """Raises RecordError or CheckpointError, naming the file, for one of an unknown format that a run would meet only under way. A
        damaged group in the spool is not among them: it is generated again."""
        from dynalign.rollout import arrow_schema
        from dynalign.run_folder.metrics import read_heldout, read_metrics

        read_metrics(self.path)
        read_heldout(self.path)
        for file in sorted((self.path / layout.SPOOL).glob("*.arrow")):
            arrow_schema.check_schema(file)
        checkpoint = self.newest_checkpoint()
        if checkpoint is not None:
            LearnerState.read(checkpoint / layout.DEEPSPEED)
            unpack(msgpack.unpackb((checkpoint / layout.LEDGER_STATE).read_bytes()))

    def write_config(self, loaded: LoadedRun) -> Path:
        """Writes every value with its origin; `load_run` reads the file back to the same settings."""

        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / layout.CONFIG
        durable.write(file, "\n".join(config_lines(loaded)) + "\n")
        return file

    def mistakes(self, settings: RunSettings) -> list[Mistake]:
        """Why a run cannot be started or continued here."""
        relative = not Path(settings.runs).expanduser().is_absolute()
        if ray_job.inside() and (relative or ray_job.in_working_copy(self.path)):
            what = "is relative, and a Ray job runs" if relative else "lies"
            rule = f"{what} in a temporary copy of the job's working directory, which goes with the job"
            return [Mistake("runs", settings.runs, rule, "set runs=/absolute/path that all nodes reach")]
        nearest = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            rule = "is no folder" if not nearest.is_dir() else "cannot be written to"
            return [
                Mistake("runs", settings.runs, f"{nearest} {rule}", "set runs=<a folder you can write to>")
            ]
        if settings.resume == "never" and nearest == self.path and any(self.path.iterdir()):
            rule = f"resume=never, and {self.path} holds a run"
            return [
                Mistake("name", settings.name, rule, "set another name, or resume=auto to continue that run")
            ]
        return []


def open_run_folder(loaded: LoadedRun) -> RunFolder:
    """The folder of a run; nothing is made or refused yet."""
    return RunFolder(Path(loaded.settings.runs).expanduser().absolute() / loaded.settings.name)


def find_run(run: str, runs: str) -> Path:
    """The folder of a run that was started once, by its name under `runs` or by its path. Raises UserError if there is none."""
    for folder in (Path(runs).expanduser() / run, Path(run).expanduser()):
        if (folder / layout.CONFIG).is_file():
            return folder
    known = sorted(path.parent.name for path in Path(runs).expanduser().glob(f"*/{layout.CONFIG}"))
    close = did_you_mean(run, known)
    there = (
        f"did you mean {close}?"
        if close
        else f"there are: {', '.join(known)}"
        if known
        else "name the folder of a run, or set --runs"
    )
    raise UserError([Mistake("run", run, f"there is no such run in {runs}", there)])


def config_lines(loaded: LoadedRun) -> Iterator[str]:
    """The lines of `config.yaml`. Values are JSON, which YAML contains."""
    open_sections: tuple[str, ...] = ()
    for setting in listed(loaded.settings):
        *sections, key = setting.path.split(".")
        for depth, section in enumerate(sections):
            if tuple(sections[: depth + 1]) != open_sections[: depth + 1]:
                yield f"{'  ' * depth}{section}:"
        open_sections = tuple(sections)
        value = json.dumps(setting.value, ensure_ascii=False)
        yield f"{'  ' * len(sections)}{key}: {value}  # {loaded.origins[setting.path]}"
