"""From the command line to the plan of an experiment: every arm is loaded and checked before any run."""

import datetime
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.configs.load import LoadedRun, listed, load_run
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.experiments.measures import MEASURES, SCALE
from dynalign.evaluation.experiments.plan import (
    Cost,
    ExperimentPlan,
    KeptPlan,
    PlannedArm,
    compared_settings,
    plan_changes,
    read_plan,
    twins,
)
from dynalign.evaluation.statistics.crossed import Components
from dynalign.launch.commands.experiment_files import LOCK, ArmRun, ExperimentFiles
from dynalign.launch.commands.experiment_options import Declared, ExperimentOptions, declared
from dynalign.launch.commands.experiment_prompts import FILE, write_transfer_prompts
from dynalign.launch.output_folder import output_folder
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.plan import PlacementPlan
from dynalign.launch.preflight import Checked, check
from dynalign.launch.prompt_check import prompts_of
from dynalign.launch.resume.open_run import open_run
from dynalign.run_folder import layout

ASSUMED = Components(seeds=0.1**2, prompts=0.2**2, rest=0.5**2)
"""In squared points: our guess for a judge whose scores differ by half a point between two answers."""
ASSUMED_OF_FUNCTION = Components(seeds=0.5**2, prompts=0.5**2, rest=1.5**2)
"""The same for a function, which often gives a score of the lowest or the highest alone."""
Examine = Callable[[LoadedRun], Checked]
"""What `dynalign check` finds about a run; tests bring their own."""


@dataclass(frozen=True)
class PreparedExperiment:
    """All that an experiment starts from: `PreparedExperiment(plan, files, arguments, {}, {}, None, …)`."""

    plan: ExperimentPlan
    """What is declared."""
    files: ExperimentFiles
    """Where everything is."""
    arguments: Mapping[str, tuple[str, ...]]
    """Arm → the arguments of `train`, without name and seed."""
    settings: Mapping[str, RunSettings]
    """Arm → its settings, with the first seed."""
    placements: Mapping[str, PlacementPlan]
    """Arm → its placement plan; arms whose model was not downloaded yet are left out."""
    kept: KeptPlan | None
    """The plan that the folder holds already; None for a new experiment."""
    declared: Declared
    """The design as chosen, with the settings that all arms begin from."""

    @property
    def runs(self) -> list[ArmRun]:
        """All runs, seed by seed, so that an experiment that is cut short has a part of every arm."""
        arms = self.plan.design.arms
        return [ArmRun(arm.name, seed) for seed in self.plan.seeds for arm in arms]

    def train_arguments(self, run: ArmRun) -> list[str]:
        """What `dynalign train` is given for a run."""
        return [*self.arguments[run.arm], f"seed={run.seed}", f"name={run.name}"]


def prepared(
    options: ExperimentOptions, examine: Examine = lambda loaded: check(open_run(loaded))
) -> PreparedExperiment:
    """Everything that is decided before the first run. Raises UserError with every mistake, RecordError for a
    damaged plan in the folder."""
    what = declared(options)
    files = ExperimentFiles(_folder(options, what))
    kept = _kept(files)
    day = what.settings.date or (datetime.date.today().isoformat() if kept is None else kept.day)
    common = (*what.overrides, f"date={json.dumps(day)}", f"runs={json.dumps(str(files.runs))}")
    if what.design.experiment == "transfer":
        common = (*common, *write_transfer_prompts(what.settings, what.foreign, files.folder))
    arguments = {arm.name: (options.config, *common, *arm.overrides()) for arm in what.design.arms}
    seeds = tuple(what.settings.seed + number for number in range(options.seeds))
    loaded: dict[str, LoadedRun] = {}
    mistakes: dict[str, list[Mistake]] = {}
    for name, (config, *overrides) in arguments.items():
        try:
            loaded[name] = load_run(config, [*overrides, f"name={name}-s{seeds[0]}"])
        except UserError as error:
            mistakes[name] = list(error.mistakes)
    if mistakes:
        raise UserError(_by_arm(mistakes, len(arguments)))
    arms = tuple(_planned(arm.name, loaded, what) for arm in what.design.arms)
    variances = _variances(options, what) if kept is None else (kept.variances, kept.variances_from)
    plan = ExperimentPlan(
        what.design, options.config, arms, seeds, options.margin, _heldout(loaded), day, *variances
    )
    if kept is not None:
        remedy = "give the same again, or another folder with --out"
        if changed := plan_changes(kept.identity, plan.identity(), remedy):
            raise UserError(changed)
    settings = {name: each.settings for name, each in loaded.items()}
    made = PreparedExperiment(plan, files, arguments, settings, {}, kept, what)
    return _examined(made, loaded, options, examine)


def _examined(
    made: PreparedExperiment, loaded: Mapping[str, LoadedRun], options: ExperimentOptions, examine: Examine
) -> PreparedExperiment:
    """The same, once `check` has found nothing against any arm that has a run left to do."""
    plan = made.plan
    mistakes: dict[str, list[Mistake]] = {}
    placements: dict[str, PlacementPlan] = {}
    left = {run.arm for run in unfinished(made)}
    for name, each in loaded.items():
        if name in left:
            checked = examine(each)
            mistakes[name] = checked.mistakes
            if checked.plan is not None:
                placements[name] = checked.plan
    made = replace(made, placements=placements)
    found = _by_arm(mistakes, len(left))
    found += twins(plan.arms)
    found += _sees_nothing(plan, options)
    found += _disk_mistakes(made, options)
    if found:
        raise UserError(found)
    return made


def unfinished(made: PreparedExperiment) -> list[ArmRun]:
    """The runs that have not finished, in the order in which they are started."""
    files = made.files
    return [run for run in made.runs if files.outcome(run, 0.0).state != "finished"]


def _planned(name: str, loaded: Mapping[str, LoadedRun], what: Declared) -> PlannedArm:
    """An arm with all its settings, and with the content of its prompts. Raises UserError for prompts that
    cannot be read."""
    settings = loaded[name].settings
    compared = compared_settings({setting.path: setting.value for setting in listed(settings)})
    if not settings.prompts.source.startswith("hub:"):
        compared["prompts.content"] = prompts_of(settings).content_hash
    return PlannedArm(what.design.arm(name), compared)


def _by_arm(mistakes: Mapping[str, Sequence[Mistake]], arms: int) -> list[Mistake]:
    """What is wrong with every arm is said once, and the rest with the name of its arm."""
    of_mistake: dict[tuple[str, str], list[str]] = {}
    for name, found in mistakes.items():
        for each in found:
            of_mistake.setdefault((each.rule, each.place), []).append(name)
    lines = []
    for name, found in mistakes.items():
        for each in found:
            named = of_mistake[each.rule, each.place]
            if len(named) < arms:
                lines.append(replace(each, place=f"arm {name}: {each.place}"))
            elif name == named[0]:
                lines.append(each)
    return lines


def _folder(options: ExperimentOptions, what: Declared) -> Path:
    if options.out is not None:
        return output_folder("--out", options.out)
    return output_folder("runs", what.settings.runs, f"{what.settings.name}-{options.experiment}")


def _kept(files: ExperimentFiles) -> KeptPlan | None:
    """The plan in the folder. Raises UserError for a folder that holds something else."""
    try:
        return read_plan(files.plan.read_text("utf-8"), str(files.plan))
    except FileNotFoundError:
        there = files.folder.iterdir() if files.folder.is_dir() else ()
        # What a judge was asked, or the prompts of a plan that was refused, may be there.
        if any(not each.name.startswith((layout.ANSWERS, FILE, LOCK)) for each in there):
            rule = "holds files, and no plan of an experiment"
            raise UserError([Mistake("--out", str(files.folder), rule, "name a new folder")]) from None
        return None
    except UnicodeDecodeError as error:
        raise RecordError(f"{files.plan}: not the plan of an experiment ({error})") from error


def _heldout(loaded: Mapping[str, LoadedRun]) -> int:
    """Held-out prompts that every arm evaluates on. The check of an arm says if they cannot be read."""
    fewest = min(each.settings.heldout.prompts for each in loaded.values())
    for each in loaded.values():
        if not each.settings.prompts.source.startswith("hub:"):
            fewest = min(fewest, len(prompts_of(each.settings).heldout))
    return fewest


def _variances(options: ExperimentOptions, what: Declared) -> tuple[Components, str]:
    """How differences will vary, and where that is from. Raises UserError for a folder without a report."""
    if options.measured is None:
        of_function = what.settings.judge.kind == "function"
        return ASSUMED_OF_FUNCTION if of_function else ASSUMED, "assumed"
    file = ExperimentFiles(user_path("--measured", options.measured)).report("json")
    rule = f"has no variances of {MEASURES[what.design.primary].title}"
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["measures"][0]["measure"]["name"] == what.design.primary and content["variances"]:
            return Components(**content["variances"]), f"measured in {file.parent.name}"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        rule = f"holds no report of an experiment ({error})"
    remedy = "name the folder of another experiment, or leave it out"
    raise UserError([Mistake("--measured", options.measured, rule, remedy)])


def _sees_nothing(plan: ExperimentPlan, options: ExperimentOptions) -> list[Mistake]:
    """The mistake of a budget with which no difference could be seen that there can be."""
    if plan.prompts < 2:
        rule = "arms are compared by held-out prompts, and two or more are needed"
        return [Mistake("heldout.prompts", plan.prompts, rule, "set heldout.prompts=8 or more")]
    limit = SCALE if options.see is None else options.see
    if plan.visible <= limit or not plan.design.compared:
        return []
    what = "the scale has" if options.see is None else "--see asks for"
    rule = (
        f"the smallest difference that {len(plan.seeds)} seeds and {plan.prompts} held-out prompts can show "
        f"is {plan.visible:.2f} points ({plan.assumed_from} variances), more than the {limit:g} that {what}"
    )
    remedy = "raise --seeds or heldout.prompts, or leave out arms with arms=A,B"
    return [Mistake("--seeds", len(plan.seeds), rule, remedy)]


def cost_of(made: PreparedExperiment, room: int, keep_checkpoints: bool) -> Cost:
    """What all runs cost, finished ones included, by the plan and by the runs that have ended."""
    plan = made.plan
    of_arm = []
    for each in plan.arms:
        settings = made.settings[each.arm.name]
        rollout = settings.rollout
        trained = settings.steps * rollout.prompts_per_step * rollout.group_size
        evaluations = 1 + -(-settings.steps // settings.heldout.every_steps)
        answers = evaluations * plan.prompts * (1 + settings.heldout.prompted)
        longest = rollout.max_completion_tokens
        of_arm.append((settings.steps, trained * longest, answers * longest))
    seeds = len(plan.seeds)
    walls = [made.files.outcome(run, 0.0).wall_s for run in made.runs]
    known = [wall_s for wall_s in walls if wall_s is not None]
    one = max((sum(part.size_bytes for part in each.disk) for each in made.placements.values()), default=0)
    return Cost(
        runs=seeds * len(of_arm),
        steps=seeds * sum(steps for steps, _, _ in of_arm),
        tokens=seeds * sum(tokens for _, tokens, _ in of_arm),
        heldout_tokens=seeds * sum(tokens for _, _, tokens in of_arm),
        disk_bytes=one * (len(walls) - len(known) if keep_checkpoints else min(room, len(walls))),
        hours=sum(known) / len(known) * len(walls) / 3600 if known else None,
    )


def _disk_mistakes(made: PreparedExperiment, options: ExperimentOptions) -> list[Mistake]:
    """The mistake of a disk that cannot hold what all runs leave together. Of one run, `check` knows."""
    if not options.keep_checkpoints or not made.placements:
        return []
    needed = cost_of(made, 1, keep_checkpoints=True).disk_bytes
    nearest = next(parent for parent in (made.files.folder, *made.files.folder.parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    if needed <= free:
        return []
    rule = f"the disk must hold {gigabytes(needed)} for the checkpoints of all runs"
    remedy = "leave out --keep-checkpoints, free some, or name a folder elsewhere with --out"
    return [Mistake(str(nearest), f"{gigabytes(free)} free", rule, remedy)]
