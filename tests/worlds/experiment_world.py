"""An experiment without training: run folders written by the product's own writers, and processes that only
pretend to be `dynalign train`. Time is counted, not waited for."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from dynalign.launch.commands.experiment import experiment
from dynalign.launch.commands.experiment_files import ArmRun, ExperimentFiles
from dynalign.launch.commands.experiment_options import ExperimentOptions
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.launch.commands.experiment_runs import RunTime
from dynalign.launch.summary import summarize, write_summary
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import MetricsLog
from tests.launch.test_preflight import paper_model

LEDGER = {"issued": 8, "pending": 0, "leased": 0, "scored": 0, "trained": 8, "withheld_by_reason": {}}
SIZE = (
    "steps=3", "heldout.prompts=8", "rollout.prompts_per_step=4", "rollout.group_size=8",
    "rollout.groups_in_flight=4",
)  # fmt: skip
"""Of the pretended runs."""
NOISE = 0.2
"""Points: of one answer's score."""


def write_run(folder: Path, level: float, step_s: float = 8.0, steps: int = 4, prompts: int = 8) -> None:
    """A finished run whose last held-out scores lie around `level` points."""
    rng = random.Random(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.CONFIG).write_text(f"name: {folder.name}\nsteps: {steps}\n")
    log = MetricsLog(folder, tensorboard=False, lineage=1)
    for step in (0, steps):
        items = []
        for prompted in (False, True):
            for number in range(prompts):
                # Prompts differ far more than arms do, and in the same way in every run.
                score = level * step / steps + 0.1 * number + 0.3 * prompted + rng.gauss(0, NOISE)
                answer = f"Answer of {folder.name} to {number}."
                prompt = f"Prompt {number}?"
                items.append(HeldoutItem(step, 1, f"h{number}", prompt, prompted, score, answer, 9, False))
        log.write_heldout(items)
    for step in range(1, steps + 1):
        row = {"step": step, "step_s": step_s, "reward_mean": level, "kl": 0.01 * step}
        log.write(row | {"no_signal_fraction": 0.25, "alarm_value_drift": int(step > 2)})
    log.close()
    write_summary(folder, summarize(folder, "finished", steps, LEDGER, wall_s=60.0))


@dataclass
class PretendedTrain:
    """A process that trains at its first look, unless its run is said to fail or to go on for ever."""

    files: ExperimentFiles
    run: ArmRun
    world: "ExperimentWorld"
    asked: int = 0
    killed: bool = False

    def poll(self) -> int | None:
        if self.killed:
            return -9
        if self.run.name in self.world.endless:
            return self.world.stop_code if self.asked >= self.world.stops_after else None
        code = self.world.codes.get(self.run.name, 0)
        if code == 0:
            write_run(self.files.run(self.run), self.world.levels.get(self.run.arm, 2.0))
        return code

    def ask_to_stop(self) -> None:
        self.asked += 1

    def kill(self) -> None:
        self.killed = True

    def silent_s(self) -> float:
        return self.world.silent_s


class Killed(BaseException):
    """Stands for the death of the command."""


@dataclass
class ExperimentWorld:
    """What the pretended runs do, and which were started."""

    folder: Path
    levels: dict[str, float] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    stops_after: int = 1
    stop_code: int = 130
    silent_s: float = 0.0
    dies_at: int | None = None
    started: list[str] = field(default_factory=list)
    judged: int = 0
    passed_s: float = 0.0

    @property
    def files(self) -> ExperimentFiles:
        return ExperimentFiles(self.folder / "experiment")

    def start_in(self, files: ExperimentFiles, run: ArmRun) -> PretendedTrain:
        if len(self.started) == self.dies_at:
            raise Killed
        self.started.append(run.name)
        files.runs.mkdir(parents=True, exist_ok=True)
        files.log(run).write_text(f"line of {run.name}\nEngineError: out of memory\n")
        return PretendedTrain(files, run, self)

    def start(self, made: PreparedExperiment, run: ArmRun) -> PretendedTrain:
        return self.start_in(made.files, run)

    def judge(self, made: PreparedExperiment) -> None:
        self.judged += 1

    def pass_time(self, seconds: float) -> None:
        self.passed_s += seconds

    @property
    def clock(self) -> RunTime:
        return RunTime(lambda: self.passed_s, self.pass_time)

    def call(self, name: str, *settings: str, **options: object) -> int:
        """`dynalign experiment NAME quickstart …`, on a model whose files hold nothing."""
        model = self.folder / "model"
        if not model.exists():
            paper_model(model)
        given = (f"model={model}", *SIZE, *settings)
        asked = {"out": str(self.files.folder), **options}
        wanted = ExperimentOptions(name, "quickstart", given, **asked)  # type: ignore[arg-type]
        return experiment(wanted, self.start, self.judge, self.clock)
