"""`dynalign experiment`: a question about the method, answered by runs of its arms.

    declare, check every arm ─► plan.json, printed ─► runs of the arms (`experiment_runs.py`) ─► third judge,
    where the question needs one ─► report.html, report.md, report.json

Killed anywhere, the same command goes on: finished runs are not repeated, an interrupted one goes on from its
checkpoint. The report is made anew from the runs' files after every run, and whenever the command is given.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dynalign.evaluation.experiments.conclusion import progress
from dynalign.evaluation.experiments.measures import MEASURES
from dynalign.evaluation.experiments.plan import Cost
from dynalign.evaluation.experiments.report import ExperimentReport, as_json, make_report
from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.experiments.time_estimate import estimate
from dynalign.launch.commands.experiment_child import CommandProcess
from dynalign.launch.commands.experiment_files import ArmRun, held
from dynalign.launch.commands.experiment_judge import (
    ThirdJudge,
    asks_somebody,
    examine_judge,
    third_judge,
    with_judged,
)
from dynalign.launch.commands.experiment_options import ExperimentOptions
from dynalign.launch.commands.experiment_plan import PreparedExperiment, cost_of, prepared, unfinished
from dynalign.launch.commands.experiment_planted import with_planted
from dynalign.launch.commands.experiment_room import room_for, running_cluster
from dynalign.launch.commands.experiment_runs import INTERRUPTED, ArmRuns, RunLimits, RunningArm, RunTime
from dynalign.launch.interrupts import Interrupts
from dynalign.launch.local_model import in_cluster
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.report.experiment_page import page
from dynalign.launch.report.experiment_tables import markdown
from dynalign.run_folder import durable, layout, owner

StartArm = Callable[[PreparedExperiment, ArmRun], RunningArm]
"""Starts the process of a run; tests bring their own."""


def start_process(made: PreparedExperiment, run: ArmRun) -> RunningArm:
    """`dynalign train` for a run, as a process of its own."""
    return CommandProcess(["train", *made.train_arguments(run)], made.files.run(run), made.files.log(run))


def experiment(
    options: ExperimentOptions,
    start: StartArm = start_process,
    judge: ThirdJudge = third_judge,
    clock: RunTime | None = None,
) -> int:
    """Runs an experiment, or goes on with it, and prints its conclusion.

    Returns 0 once every run has finished, 1 if one failed, 130 after a signal. Raises UserError with every
    mistake before the first run starts."""
    made = prepared(options)
    left = unfinished(made)
    if options.plan:
        for line in plan_lines(made, cost_of(made, 1, options.keep_checkpoints), 1, options):
            print(line)
        print("nothing was started; the same command without --plan starts it")
        return 0
    with held(made.files):
        return _experiment(made, left, options, start, judge, clock)


def _experiment(
    made: PreparedExperiment,
    left: Sequence[ArmRun],
    options: ExperimentOptions,
    start: StartArm,
    judge: ThirdJudge,
    clock: RunTime | None,
) -> int:
    if left:
        examine_judge(made)
    for run in made.runs:
        if made.files.end(run) is None:  # it may have finished after its experiment was killed
            _remove_checkpoints(made, options, run)
    room = _room(made, options, bool(left))
    cost = cost_of(made, room, options.keep_checkpoints)
    for line in plan_lines(made, cost, room, options):
        print(line)
    if made.kept is None:
        made.files.runs.mkdir(mode=layout.PRIVATE, parents=True, exist_ok=True)
        durable.write(made.files.plan, made.plan.as_json(cost))
    whole = True
    known: dict[ArmRun, RunFigures] = {}
    if left:
        interrupts = Interrupts()
        ended = partial(_ended, made, options, known)
        try:
            whole = _runs(made, room, start, ended, interrupts, clock).run(left)
        finally:
            interrupts.restore()
    if whole and made.plan.design.asks_third_judge:
        judge(made)
    report = write_report(made, options, known)
    for line in report.sentences:
        print(line)
    print(f"the report: {made.files.report('html')}, report.md and report.json beside it")
    if not whole:
        print("interrupted; the same command goes on")
        return INTERRUPTED
    return int(not report.finished)


def _ended(
    made: PreparedExperiment, options: ExperimentOptions, known: dict[ArmRun, RunFigures], run: ArmRun
) -> None:
    """After the end of a run: its checkpoints are removed, and the report is made anew."""
    _remove_checkpoints(made, options, run)
    print(next(progress(write_report(made, options, known).runs), "all runs have finished"))


def _remove_checkpoints(made: PreparedExperiment, options: ExperimentOptions, run: ArmRun) -> None:
    """Those of a finished run, unless they are wanted: nothing goes on from them any more."""
    if not options.keep_checkpoints and made.files.outcome(run, time.time()).state == "finished":
        shutil.rmtree(made.files.run(run) / layout.CHECKPOINTS, ignore_errors=True)


def _runs(
    made: PreparedExperiment,
    room: int,
    start: StartArm,
    ended: Callable[[ArmRun], None],
    interrupts: Interrupts,
    clock: RunTime | None,
) -> ArmRuns[ArmRun]:
    files = made.files

    def occupied(run: ArmRun) -> bool:
        return owner.is_driven(files.run(run), time.time())

    limits = RunLimits.of(made.declared.settings.deadlines)
    return ArmRuns(
        files, room, limits, lambda run: start(made, run), occupied, ended, print, interrupts, clock
    )


def write_report(
    made: PreparedExperiment, options: ExperimentOptions, known: dict[ArmRun, RunFigures]
) -> ExperimentReport:
    """Makes the report from the runs' files, and writes it as HTML, Markdown and JSON.

    known: the figures of finished runs that were read before; those that are read now are added."""
    files = made.files
    runs = with_planted(made, with_judged(made, files.figures(made.runs, known)))
    report = make_report(made.plan, cost_of(made, 1, options.keep_checkpoints), runs)
    durable.write(files.report("html"), page(report))
    durable.write(files.report("md"), markdown(report))
    durable.write(files.report("json"), as_json(report))
    return report


def _room(made: PreparedExperiment, options: ExperimentOptions, needed: bool) -> int:
    """Runs at one time: those that the cluster has room for, at most `--at-once`."""
    most = options.at_once
    if not needed or not made.placements or (most == 1) or not in_cluster():
        return 1
    cluster = running_cluster()
    largest = min(room_for(placement, cluster) for placement in made.placements.values())
    return largest if most is None else min(most, largest)


def plan_lines(made: PreparedExperiment, cost: Cost, room: int, options: ExperimentOptions) -> Iterator[str]:
    """The plan, as it is printed before anything starts."""
    plan = made.plan
    design = plan.design
    arms = f"{len(design.arms)} arm{'' if len(design.arms) == 1 else 's'}"
    runs = f"{arms} x {len(plan.seeds)} seeds = {cost.runs} runs of {plan.config}"
    yield f"experiment {design.experiment}: {runs}"
    yield f"question: {design.question}"
    for arm in design.arms:
        mark = " (the others are compared with it)" if arm.name == design.baseline else ""
        yield f"  {arm.name}: {arm.words()}{mark}"
    primary = MEASURES[design.primary]
    if design.compared:
        yield (
            f"compared: {primary.title}, paired by {plan.prompts} prompts and {len(plan.seeds)} seeds, "
            f"95 % intervals over both, Holm over {len(design.compared)} "
            f"other arm{'' if len(design.compared) == 1 else 's'}; "
            f"a loss of less than {plan.margin:g} {primary.unit} counts as none"
        )
        parts = (plan.assumed.seeds, plan.assumed.prompts, plan.assumed.rest)
        of_each = ", ".join(
            f"{name} {part**0.5:.2f}" for name, part in zip(("seeds", "prompts", "rest"), parts, strict=True)
        )
        yield (
            f"smallest visible difference: {plan.visible:.2f} {primary.unit} with power 80 % "
            f"({plan.assumed_from} standard deviations: {of_each})"
        )
    else:
        yield (
            f"compared: gains on trained prompts, on held-out ones, and on those of {made.declared.foreign}; "
            f"a gap of less than {plan.margin:g} {primary.unit} counts as none"
        )
    beside = ", ".join(MEASURES[name].title for name in design.secondary)
    yield f"reported beside it: {beside}"
    if options.small and cost.hours is None:
        each = [made.settings[arm.name] for arm in design.arms]
        asks = asks_somebody(made)
        yield estimate(each, len(plan.seeds), plan.prompts, asks, asks and design.plants_bias).line()
    yield from cost_lines(cost, room, options.keep_checkpoints)
    state = (
        "new" if made.kept is None else f"{cost.runs - len(unfinished(made))} of {cost.runs} runs finished"
    )
    yield f"plan {plan.hash} in {made.files.folder}: {state}"


def cost_lines(cost: Cost, room: int, keep_checkpoints: bool) -> Iterator[str]:
    """What an experiment costs, in words."""
    hours = "unknown until the first run has ended" if cost.hours is None else f"{cost.hours / room:.1f}"
    at_once = "one after the other" if room == 1 else f"{room} at a time"
    yield (
        f"cost: {cost.steps:,} steps, at most {cost.tokens:,} completion tokens of training and "
        f"{cost.heldout_tokens:,} of held-out answers; hours: {hours}, {at_once}"
    )
    removed = "all checkpoints stay" if keep_checkpoints else "checkpoints of finished runs are removed"
    yield f"disk: {gigabytes(cost.disk_bytes)} at one time; {removed}"
