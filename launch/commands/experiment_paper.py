"""`dynalign experiment paper`: the whole way of the paper, step by step, each an ordinary command.

    prompts make ─► train, until the held-out reward converges ─► evaluate pairwise against the model that it
    began from ─► report with the paper's table

Each step keeps what it has done, so that a killed one goes on and a finished one is not repeated.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.evaluation.experiments.arms import SMALL, Arm, Changes
from dynalign.evaluation.experiments.plan import FORMAT, identity_hash, plan_changes, read_identity
from dynalign.evaluation.experiments.time_estimate import paper_seconds
from dynalign.launch.commands.experiment_child import CommandProcess
from dynalign.launch.commands.experiment_files import LOCK, ExperimentFiles, held
from dynalign.launch.commands.experiment_options import ExperimentOptions
from dynalign.launch.commands.experiment_runs import (
    INTERRUPTED,
    ArmRuns,
    RunLimits,
    RunningArm,
    RunTime,
)
from dynalign.launch.interrupts import Interrupts
from dynalign.launch.output_folder import output_folder
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.preflight import Checked, check
from dynalign.launch.report.paper_report import PaperStepState, write_paper_report
from dynalign.launch.resume.open_run import open_run
from dynalign.rollout.prompts import load_prompts
from dynalign.run_folder import durable, layout, owner

RUN = "run"
"""The name of the run."""
SET = "prompts"
"""The folder of the prompts."""
EVALUATION = "evaluation"
"""The folder of the evaluation."""
PROMPTS = 1000
"""Stated by the paper."""
SMALL_PROMPTS = ("count=2", "rounds=0", "attempts=1", "tries=1")
"""A laptop's model writes a few prompts in minutes, and hardly ever one that its own critic accepts."""
_SHORT: Changes = (
    ("steps", 4), ("heldout.every_steps", 1), ("heldout.prompted", True), ("convergence.window", 2),
    ("convergence.min_delta", 0.02), ("checkpoint.every_steps", 4),
)  # fmt: skip
SMALL_RUN = tuple(Arm("", "", tuple((dict(SMALL) | dict(_SHORT)).items())).overrides())
SMALL_EVALUATION = ("--limit", "4", "--max-tokens", "16", "--judge-tokens", "48")
FEWEST = 2
"""Prompts of each split: with fewer, the run trains on the shipped ones, and the report says so."""
MAKING = "making."
"""Of KEY=VALUE, the beginning of the keys that are settings of `prompts make`."""
StartStep = Callable[["PaperStep", ExperimentFiles], RunningArm]
"""Starts the process of a step; tests bring their own."""


@dataclass(frozen=True)
class PaperStep:
    """One step: `PaperStep("train", ("train", "quickstart", "steps=12"), Path("…/runs/run"))`."""

    name: str
    """Of its log, and in the report."""
    arguments: tuple[str, ...]
    """The command line of `dynalign`."""
    folder: Path
    """The folder in which it works."""

    @property
    def command(self) -> str:
        """As a user would type it."""
        return shlex.join(["dynalign", *self.arguments])


@dataclass(frozen=True)
class PaperPlan:
    """All that the way starts from: `PaperPlan(files, settings, "quickstart", ("steps=12",), …)`."""

    files: ExperimentFiles
    """Where everything is."""
    settings: RunSettings
    """Of the run, on the shipped prompts."""
    config: str
    """The configuration."""
    overrides: tuple[str, ...]
    """What is changed in it."""
    making: tuple[str, ...]
    """The command line of `prompts make`."""
    judging: tuple[str, ...]
    """That of `evaluate pairwise`, behind the run."""

    @property
    def prompts(self) -> Path:
        """The folder of the prompts."""
        return self.files.folder / SET

    @property
    def made(self) -> bool:
        """Whether prompts were made that a run can use."""
        with suppress(UserError):
            found = load_prompts(str(self.prompts))
            return min(len(found.train), len(found.heldout)) >= FEWEST
        return False

    def steps(self) -> Iterator[PaperStep]:
        """The steps in order, each made when it is asked for: what `train` is given depends on what `prompts`
        has made."""
        files = self.files
        yield PaperStep("prompts", self.making, self.prompts)
        source = [f"prompts.source={json.dumps(str(self.prompts))}"] if self.made else []
        own = (f"name={RUN}", f"runs={json.dumps(str(files.runs))}")
        run = files.runs / RUN
        yield PaperStep("train", ("train", self.config, *self.overrides, *source, *own), run)
        evaluation = files.folder / EVALUATION
        where = ("--runs", str(files.runs), "--out", str(evaluation))
        yield PaperStep("evaluate", ("evaluate", "pairwise", RUN, *where, *self.judging), evaluation)

    def identity(self) -> dict[str, object]:
        """What may not change once the first step has begun."""
        steps = {"prompts": list(self.making), "evaluate": list(self.judging)}
        train = dict(each.partition("=")[::2] for each in self.overrides)
        return {"experiment": "paper", "config": self.config, "train": train, **steps}


def start_step(step: PaperStep, files: ExperimentFiles) -> RunningArm:
    """The command of a step, as a process of its own."""
    return CommandProcess(step.arguments, step.folder, files.log(step))


def experiment_paper(
    options: ExperimentOptions,
    start: StartStep = start_step,
    clock: RunTime | None = None,
    examine: Callable[[PaperPlan], Checked] | None = None,
) -> int:
    """Walks the whole way, or goes on with it, and prints what was found.

    Returns 0 once every step has ended well, 1 if one failed, 130 after a signal. Raises UserError with every
    mistake before the first step starts."""
    plan = paper_plan(options)
    checked = (examine or _checked)(plan)
    if checked.mistakes:
        raise UserError(checked.mistakes)
    _say_plan(plan, checked)
    if options.small:
        minutes = paper_seconds(plan.settings) / 60
        print(f"estimated: {minutes:.0f} minutes on two slow cores with a model of 135M parameters")
    if options.plan:
        print("nothing was started; the same command without --plan starts it")
        return 0
    with held(plan.files):
        return _whole_way(plan, start, clock)


def _say_plan(plan: PaperPlan, checked: Checked) -> None:
    files = plan.files
    print(f"experiment paper: {plan.config}, in {files.folder}")
    for step in plan.steps():
        print(f"  {step.name}: {step.command}")
    for line in () if checked.plan is None else plan_lines(checked.plan):
        print(line)


def _whole_way(plan: PaperPlan, start: StartStep, clock: RunTime | None) -> int:
    _keep(plan)
    interrupts = Interrupts()
    try:
        ended = _walk(plan, start, interrupts, clock)
    finally:
        interrupts.restore()
    for line in write_report(plan):
        print(line)
    if interrupts.count:
        print("interrupted; the same command goes on")
        return INTERRUPTED
    return int(not ended)


def paper_plan(options: ExperimentOptions) -> PaperPlan:
    """What the steps are. Raises UserError with every mistake, RecordError for a damaged plan."""
    making = [each.removeprefix(MAKING) for each in options.settings if each.startswith(MAKING)]
    judges = [each.partition("=")[2] for each in options.settings if each.startswith("judged_by=")]
    given = [each for each in options.settings if not each.startswith((MAKING, "judged_by="))]
    small = options.small
    overrides = (*(SMALL_RUN if small else ()), *given)
    settings = load_run(options.config, overrides).settings
    if options.out is None:
        files = ExperimentFiles(output_folder("runs", settings.runs, f"{settings.name}-paper"))
    else:
        files = ExperimentFiles(output_folder("--out", options.out))
    asks = any("endpoint" in each.partition("=")[0] or each.startswith("pool.model=") for each in making)
    local = () if asks else ("--local", settings.model)
    count = SMALL_PROMPTS if small else (f"count={PROMPTS}",)
    out = ("--out", str(files.folder / SET))
    plan = PaperPlan(
        files,
        settings,
        options.config,
        overrides,
        ("prompts", "make", *out, *local, *count, *making),
        ("--judge", judges[0] if judges else settings.model, *(SMALL_EVALUATION if small else ())),
    )
    if files.plan.exists():
        kept = read_identity(files.plan.read_text("utf-8"), str(files.plan))
        remedy = "give the same again, or another folder with --out"
        if changed := plan_changes(kept, plan.identity(), remedy):
            raise UserError(changed)
    elif files.folder.is_dir() and any(each.name != LOCK for each in files.folder.iterdir()):
        rule = "holds files, and no plan of an experiment"
        raise UserError([Mistake("--out", str(files.folder), rule, "name a new folder")])
    return plan


def _checked(plan: PaperPlan) -> Checked:
    """What `dynalign check` finds about the run, as far as it can be known before there are prompts."""
    steps = {step.name: step for step in plan.steps()}
    _, config, *overrides = steps["train"].arguments
    run = open_run(load_run(config, overrides))
    return check(run) if run.folder.finished(run.settings) is None else Checked(None, [])


def _keep(plan: PaperPlan) -> None:
    if not plan.files.plan.exists():
        plan.files.runs.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
        identity = plan.identity()
        content = {"format": FORMAT, "hash": identity_hash(identity), "identity": identity}
        durable.write(plan.files.plan, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _walk(plan: PaperPlan, start: StartStep, interrupts: Interrupts, clock: RunTime | None) -> bool:
    """Brings one step after the other to its end. Whether all have ended well."""
    limits = RunLimits.of(plan.settings.deadlines)

    def occupied(step: PaperStep) -> bool:
        return owner.is_driven(step.folder, time.time())

    for step in plan.steps():
        if step_state(plan.files, step) == "finished":
            continue
        runs = ArmRuns(
            plan.files, 1, limits, lambda each: start(each, plan.files), occupied, lambda each: None, print,
            interrupts, clock,
        )  # fmt: skip
        if not runs.run([step]) or step_state(plan.files, step) != "finished":
            return False
    return True


def step_state(files: ExperimentFiles, step: PaperStep) -> str:
    """`finished`, `failed`, `interrupted` or `not started`. Only a process that has ended well has finished
    its step; after a run that was stopped by `dynalign stop`, that is not so."""
    end = files.end(step)
    if end is None:
        return "interrupted" if files.log(step).exists() else "not started"
    if end.code == 0 and step.name == "train" and files.outcome(step_run(), 0.0).state != "finished":
        return "interrupted"
    return {0: "finished", INTERRUPTED: "interrupted"}.get(end.code, "failed")


@dataclass(frozen=True)
class _Run:
    name: str = RUN


def step_run() -> _Run:
    """The run, as the experiment's files name it."""
    return _Run()


def write_report(plan: PaperPlan) -> Sequence[str]:
    """Writes the report from what the steps have left; returns its sentences."""
    files = plan.files
    states = []
    for step in plan.steps():
        end = files.end(step)
        state = step_state(files, step)
        said = end.said if end is not None and state == "failed" else ""
        states.append(PaperStepState(step.name, step.command, state, said))
    return write_paper_report(
        files.folder, states, files.runs / RUN, files.folder / EVALUATION, plan.made, plan.settings
    )
