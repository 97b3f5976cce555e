"""The third judge of an experiment: one model that trained no arm scores the held-out answers of all.

By default it is the model that the runs begin from, on an engine of our own. Where the value is counted, a
function stands in for it, and nobody is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dynalign.configs.user_paths import user_path
from dynalign.evaluation.experiments import verifiable_value
from dynalign.evaluation.experiments.run_figures import RunFigures, gains, last_scores
from dynalign.launch.commands.evaluate_opening import Opener, OpenSubject
from dynalign.launch.commands.evaluate_subjects import Subject, engine_settings, subject
from dynalign.launch.commands.experiment_files import ArmRun, ExperimentFiles
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.launch.commands.experiment_planted import planted_work
from dynalign.launch.commands.experiment_scores import (
    ScoreFile,
    ScoringWork,
    answer_key,
    do_all,
    third_settings,
)
from dynalign.launch.interrupts import run_async
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.run_folder.heldout import HeldoutItem, reward_by_step
from dynalign.run_folder.metrics import read_heldout

FORMAT = "dynalign.judged/1"
ThirdJudge = Callable[[PreparedExperiment], None]
"""Sees to it that every answer has a score; tests bring their own."""


def examine_judge(made: PreparedExperiment) -> None:
    """Looks at the third judge that the user names, before a run starts. Raises UserError with every mistake.

    The model that the runs begin from is looked at by their own check."""
    if made.declared.judged_by is None or not made.plan.design.asks_third_judge:
        return
    who = subject("judged_by", made.declared.judged_by)
    made.files.folder.mkdir(parents=True, exist_ok=True)
    opener = Opener(made.files.answers, engine_settings((), made.declared.settings))
    run_async(opener.examine((), (who,), grades=False))


def third_judge(made: PreparedExperiment, open_subject: OpenSubject | None = None) -> None:
    """Scores the answers that have no score yet, and those with a planted bias, where the question needs
    them.

    Raises UserError for a judge that is not there or another one than before, EndpointUnreachable or
    BudgetReached; what was answered is kept."""
    if not asks_somebody(made):
        return
    who = subject("judged_by", made.declared.judged_by or made.declared.settings.model)
    works = [_heldout_work(made, who)]
    if made.plan.design.plants_bias:
        works.append(planted_work(made, who))
    opener = Opener(made.files.answers, engine_settings((), made.declared.settings))
    do_all(works, open_subject or opener, made.declared.settings.seed)


def _counted(made: PreparedExperiment) -> bool:
    """Whether a function stands in for the third judge."""
    return made.plan.design.counted and made.declared.judged_by is None


def asks_somebody(made: PreparedExperiment) -> bool:
    """Whether a model is asked for scores once the runs have ended."""
    return made.plan.design.asks_third_judge and not _counted(made)


def _heldout_work(made: PreparedExperiment, who: Subject) -> ScoringWork:
    """The answers of all runs that have no score yet."""
    file = score_file(made.files)
    kept = file.read(who.content)
    items = [item for run in made.runs for item in _answers(made.files.run(run))]
    every = {_key(item): (item.prompt, item.completion) for item in items}
    missing = {key: pair for key, pair in every.items() if key not in kept}
    judge = made.declared.settings.judge
    how = third_settings(judge, who)
    folder = None if judge.values is None else user_path("judge.values", judge.values)
    texts = load_value_texts(folder, "unified", how.scorer)
    return ScoringWork(who, how, (texts,), missing, file, kept, whole_alone=True)


def with_judged(made: PreparedExperiment, runs: Sequence[RunFigures]) -> list[RunFigures]:
    """The runs' figures, with the third judge's scores where there are some."""
    scores = score_file(made.files).read()
    counted = _counted(made)
    if not scores and not counted:
        return list(runs)
    found = []
    for run in runs:
        if not run.by_prompt:
            found.append(run)
            continue
        answers = _answers(made.files.run(ArmRun(run.arm, run.seed)))
        if counted:
            scored = [
                replace(each, score=verifiable_value.whole(each.prompt, each.completion)) for each in answers
            ]
        else:
            scored = [replace(each, score=scores.get(_key(each))) for each in answers]
        points = last_scores(scored, prompted=False)
        gold = tuple(sorted(reward_by_step(scored).items()))
        gained = gains(scored, prompted=False)
        judged = {"judged": points, **({"judged_gain": gained} if gained else {})}
        found.append(replace(run, by_prompt={**run.by_prompt, **judged}, gold=gold) if points else run)
    return found


def score_file(files: ExperimentFiles) -> ScoreFile:
    """Where its scores are: answer → points, None for a verdict that cannot be read."""
    return ScoreFile(files.judged, FORMAT, "judged_by")


def _key(item: HeldoutItem) -> str:
    return answer_key(item.prompt, item.completion)


def _answers(folder: Path) -> list[HeldoutItem]:
    """The answers of all evaluations, without the system prompt."""
    return [item for item in read_heldout(folder) if not item.prompted]
