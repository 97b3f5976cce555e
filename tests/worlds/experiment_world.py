"""An experiment without training: run folders written by the product's own writers, and processes that only
pretend to be `dynalign train`. Time is counted, not waited for."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynalign.launch.commands.experiment import experiment
from dynalign.launch.commands.experiment_files import ArmRun
from dynalign.launch.commands.experiment_options import ExperimentOptions
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.launch.commands.experiment_runs import RunTime
from dynalign.launch.summary import State, summarize, write_summary
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import MetricsLog
from tests.launch.test_preflight import paper_model

LEDGER = {"issued": 8, "pending": 0, "leased": 0, "scored": 0, "trained": 8, "withheld_by_reason": {}}


def write_run(
    folder: Path, level: float, seed: int, *, prompts: int = 8, step_s: float = 8.0, state: State = "finished",
    noise: float = 0.2, steps: int = 4,
) -> None:  # fmt: skip
    """A run whose last held-out scores lie around `level` points."""
    rng = random.Random(f"{folder.name} {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.CONFIG).write_text(f"name: {folder.name}\nsteps: {steps}\n")
    log = MetricsLog(folder, tensorboard=False, lineage=1)
    for step in (0, steps):
        items = []
        for prompted in (False, True):
            for number in range(prompts):
                # Prompts differ far more than arms do, and in the same way in every run.
                score = level * step / steps + 0.1 * number + 0.3 * prompted + rng.gauss(0, noise)
                prompt = f"Prompt {number}?"
                answer = f"Answer {folder.name} {number} {prompted}."
                items.append(HeldoutItem(step, 1, f"h{number}", prompt, prompted, score, answer, 9, False))
        log.write_heldout(items)
    for step in range(1, steps + 1):
        row = {
            "step": step,
            "step_s": step_s,
            "reward_mean": level,
            "internalization_gap": 0.1,
            "kl": 0.01 * step,
        }
        log.write(row | {"no_signal_fraction": 0.25, "alarm_value_drift": int(step > 2)})
    log.close()
    write_summary(folder, summarize(folder, state, steps, LEDGER, wall_s=60.0))


@dataclass
class PretendedTrain:
    """A process that trains at its first look, unless its run is said to fail or to go on for ever."""

    made: PreparedExperiment
    run: ArmRun
    world: "ExperimentWorld"
    stopped: int = 0

    def poll(self) -> int | None:
        if self.run.name in self.world.endless and not self.stopped:
            return None
        code = 130 if self.stopped else self.world.codes.get(self.run.name, 0)
        if code == 0:
            level = self.world.levels.get(self.run.arm, 2.0)
            write_run(self.made.files.run(self.run), level, self.run.seed)
        return code

    def ask_to_stop(self) -> None:
        self.stopped += 1

    def kill(self) -> None:
        self.stopped += 1

    def silent_s(self) -> float:
        return 10_000.0


class Killed(BaseException):
    """Stands for the death of the command."""


@dataclass
class ExperimentWorld:
    """What the pretended runs do, and which were started."""

    folder: Path
    levels: dict[str, float] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    dies_before: Callable[[int], bool] = lambda start: False
    started: list[str] = field(default_factory=list)
    judged: int = 0
    passed_s: float = 0.0

    def start(self, made: PreparedExperiment, run: ArmRun) -> PretendedTrain:
        if self.dies_before(len(self.started)):
            raise Killed
        self.started.append(run.name)
        made.files.log(run).write_text(f"line of {run.name}\nEngineError: out of memory\n")
        return PretendedTrain(made, run, self)

    def judge(self, made: PreparedExperiment) -> None:
        self.judged += 1

    def call(self, name: str, *settings: str, **options: object) -> int:
        """`dynalign experiment NAME quickstart …`, on a model whose files hold nothing."""
        model = self.folder / "model"
        if not model.exists():
            paper_model(model)
        given = (f"model={model}", *settings)
        asked = {"out": str(self.folder / "experiment"), **options}
        return experiment(
            ExperimentOptions(name, "quickstart", given, **asked),  # type: ignore[arg-type]
            self.start,
            self.judge,
            RunTime(lambda: self.passed_s, self.pass_time),
        )

    def pass_time(self, seconds: float) -> None:
        self.passed_s += seconds


def planted(levels: Mapping[str, float], folder: Path) -> ExperimentWorld:
    """A world whose arms end at these held-out rewards."""
    return ExperimentWorld(folder, dict(levels))
