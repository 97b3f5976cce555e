"""`runs/<name>/`: where a run's folder is, how far the run in it has come, and its resolved config.yaml.

A command that starts or examines a run calls `open_run` once, and passes the `OpenRun` on: nothing else
derives the folder from the settings, and nothing validates the settings again.
"""

import datetime
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgpack
import yaml

from dynalign.configs.errors import Mistake, RecordError, UserError, one_line
from dynalign.configs.load import LoadedRun, listed
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import user_path
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
"""How far the run in a folder has come. `new`: none was ever started there."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, which need not exist yet: `RunFolder(Path("/shared/runs/quickstart"))`."""

    path: Path
    """Absolute."""

    def state(self) -> State:
        """How far the run has come. Raises RecordError if summary.json holds no summary."""
        summary = self.path / layout.SUMMARY
        if summary.exists():
            try:
                if json.loads(summary.read_text("utf-8"))["state"] == "finished":
                    return "finished"
            except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
                remedy = "remove it: `dynalign train` writes it again"
                raise RecordError(f"{summary}: not a summary ({one_line(error)}); {remedy}") from error
        return "interrupted" if (self.path / layout.CONFIG).exists() else "new"

    def finished(self, settings: RunSettings) -> "Summary | None":
        """How the run ended; None while something is left to do, also because it is given more steps."""
        if settings.resume == "never" or self.state() != "finished":
            return None
        from dynalign.launch.summary import read_summary

        summary = read_summary(self.path)
        return summary if summary is not None and summary.step >= settings.steps else None

    def newest_checkpoint(self) -> Path | None:
        """Raises CheckpointError when the newest one is damaged."""
        return newest_whole(self.path / layout.CHECKPOINTS)

    def newest_lineage(self) -> int:
        """The newest lineage in the ledger's log or in a checkpoint; 0 for a new run.

        Raises RecordError for a damaged log, CheckpointError for a damaged checkpoint.
        """
        lineages = [0]
        log = self.path / layout.LEDGER_LOG
        if log.exists():
            lineages += [line.lineage for line in ledger_log.read(log) if not isinstance(line, Scored)]
        checkpoint = self.newest_checkpoint()
        if checkpoint is not None:
            lineages.append(read_manifest(checkpoint).lineage)
        return max(lineages)

    def check_formats(self) -> None:
        """Reads each kind of file, so that an unknown format is found now and not during the run.

        Damaged groups in the spool pass: they are generated again.
        Raises RecordError or CheckpointError, which name the file.
        """
        from dynalign.rollout import arrow_schema
        from dynalign.run_folder.metrics import read_capability, read_heldout, read_metrics

        read_metrics(self.path)
        read_heldout(self.path)
        read_capability(self.path)
        for file in layout.group_files(self.path / layout.SPOOL):
            arrow_schema.check_schema(file)
        checkpoint = self.newest_checkpoint()
        if checkpoint is not None:
            LearnerState.read(checkpoint / layout.DEEPSPEED)
            unpack(msgpack.unpackb((checkpoint / layout.LEDGER_STATE).read_bytes()))

    def write_config(self, loaded: LoadedRun) -> Path:
        """Writes config.yaml, every value with its origin. `load_run` reads it back to the same settings."""
        self.path.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
        file = self.path / layout.CONFIG
        durable.write(file, "\n".join(config_lines(loaded)) + "\n")
        return file

    def day(self) -> str | None:
        """The day that the run in this folder began, as config.yaml has it (YYYY-MM-DD); None for a new run.

        Raises RecordError if config.yaml cannot be read.
        """
        file = self.path / layout.CONFIG
        if not file.exists():
            return None
        try:
            config = yaml.safe_load(file.read_text("utf-8"))
            day = config.get("date")
            return None if day is None else datetime.date.fromisoformat(str(day)).isoformat()
        except (AttributeError, OSError, ValueError, yaml.YAMLError) as error:
            raise RecordError(f"{file}: not the configuration of a run ({one_line(error)})") from error

    def mistakes(self, settings: RunSettings) -> list[Mistake]:
        """Why a run cannot be started or continued here."""
        lost = ray_job.lost_with_the_job(settings.runs, self.path)
        if lost is not None:
            return [Mistake("runs", settings.runs, lost, "set runs=/absolute/path that all nodes reach")]
        nearest = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            rule = "is no folder" if not nearest.is_dir() else "cannot be written to"
            remedy = "set runs=<a folder you can write to>"
            return [Mistake("runs", settings.runs, f"{nearest} {rule}", remedy)]
        answered = layout.ANSWERS  # of an attempt that was refused: what it has spent stays known
        there = nearest == self.path and any(
            not each.name.startswith(answered) for each in self.path.iterdir()
        )
        if settings.resume == "never" and there:
            rule = f"resume=never, and {self.path} holds a run"
            remedy = "set another name, or resume=auto to continue that run"
            return [Mistake("name", settings.name, rule, remedy)]
        return []


@dataclass(frozen=True)
class OpenRun:
    """A run as a command works on it: its validated settings, and the folder that they name.

    `OpenRun(LoadedRun(settings, origins), RunFolder(Path("/shared/runs/quickstart")))`
    """

    loaded: LoadedRun
    """The settings and where each came from."""
    folder: RunFolder
    """The folder `runs/<name>`."""

    @property
    def settings(self) -> RunSettings:
        """The validated settings."""
        return self.loaded.settings

    def dated(self) -> "OpenRun":
        """The same run with `date` set: to the day it began, also when it is continued on a later one.

        A chat template may print the date, so a continued run must keep it. Raises RecordError like
        `RunFolder.day`.
        """
        if self.settings.date is not None:
            return self
        day = self.folder.day() or datetime.date.today().isoformat()
        settings = self.settings.model_copy(update={"date": day})
        return replace(
            self, loaded=LoadedRun(settings, self.loaded.origins | {"date": "the day the run began"})
        )


def open_run(loaded: LoadedRun) -> OpenRun:
    """Finds the folder of a run. Nothing is written or refused yet."""
    return OpenRun(loaded, RunFolder(user_path("runs", loaded.settings.runs) / loaded.settings.name))


def find_run(run: str, runs: str) -> Path:
    """The folder of a run that was started before, by its name under `runs` or by its path.

    Raises UserError if there is none.
    """
    parent = user_path("--runs", runs)
    for folder in (user_path("run", str(parent / run)), user_path("run", run)):
        if (folder / layout.CONFIG).is_file():
            return folder
    known = [folder.name for folder in layout.run_folders(parent)]
    close = did_you_mean(run, known)
    remedy = "name the folder of a run, or set --runs"
    if close:
        remedy = f"did you mean {close}?"
    elif known:
        remedy = f"there are: {', '.join(known)}"
    raise UserError([Mistake("run", run, f"there is no such run in {runs}", remedy)])


def config_lines(loaded: LoadedRun) -> Iterator[str]:
    """The lines of config.yaml. Values are written as JSON, which is valid YAML."""
    open_sections: tuple[str, ...] = ()
    for setting in listed(loaded.settings):
        *sections, key = setting.path.split(".")
        for depth, section in enumerate(sections):
            if tuple(sections[: depth + 1]) != open_sections[: depth + 1]:
                yield f"{'  ' * depth}{section}:"
        open_sections = tuple(sections)
        value = json.dumps(setting.value, ensure_ascii=False)
        yield f"{'  ' * len(sections)}{key}: {value}  # {loaded.origins[setting.path]}"
