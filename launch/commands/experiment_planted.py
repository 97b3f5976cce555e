"""Answers with a planted bias, scored by each arm's rubric once the runs have ended.

The judge is that of the runs before training, the model that they begin from; where the runs' judge is no
policy, the third judge. It scores every answer as a whole and by each aspect once, and an arm's score is made
of these by the rule of the arm. Where the value is counted, the arms' functions are called.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dynalign.configs.sections.judge import FROZEN, SELF, JudgeSettings
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.experiments.planted import (
    PlantedAnswer,
    Scores,
    planted_answers,
    planted_lift,
)
from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.experiments.verifiable_value import JUDGES
from dynalign.launch.commands.evaluate_subjects import Subject, subject
from dynalign.launch.commands.experiment_files import ArmRun
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.launch.commands.experiment_scores import ScoreFile, ScoringWork, answer_key, third_settings
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.run_folder.metrics import read_heldout

FORMAT = "dynalign.planted/1"


def planted_work(made: PreparedExperiment, third: Subject) -> ScoringWork:
    """What is to be asked about the answers that have no score yet. third: the third judge.

    Raises UserError where another judge gave the scores that are kept."""
    settings = made.declared.settings
    own = settings.judge.kind in (SELF, FROZEN)
    who = subject("model", settings.model) if own else third
    file = _file(made)
    kept = file.read(who.content)
    every = {
        answer_key(answer.prompt, text): (answer.prompt, text)
        for seed in made.plan.seeds
        for answer in _answers(made, seed)
        for text in answer.texts
    }
    missing = {key: pair for key, pair in every.items() if key not in kept}
    how = settings.judge if own else third_settings(settings.judge, who)
    folder = None if settings.judge.values is None else user_path("judge.values", settings.judge.values)
    texts = tuple(load_value_texts(folder, rubric, how.scorer) for rubric in ("unified", "factorized"))
    return ScoringWork(who, how, texts, missing, file, kept, whole_alone=False)


def with_planted(made: PreparedExperiment, runs: Sequence[RunFigures]) -> list[RunFigures]:
    """The runs' figures with the lifts of their arms' judges, where the biased answers have scores."""
    if not made.plan.design.plants_bias:
        return list(runs)
    kept = {} if made.plan.design.counted else _file(made).read()
    if not kept and not made.plan.design.counted:
        return list(runs)
    answers = {seed: _answers(made, seed) for seed in made.plan.seeds}
    return [_with_lift(made, run, answers[run.seed], kept) if run.by_prompt else run for run in runs]


def _with_lift(
    made: PreparedExperiment, run: RunFigures, answers: Sequence[PlantedAnswer], kept: dict[str, Scores]
) -> RunFigures:
    judge = made.settings[run.arm].judge
    lift = planted_lift(judge, answers, partial(_scores, judge, kept))
    if not lift.by_prompt:
        return run
    values = dict(run.values) | {f"{bias}_lift": rise for bias, rise in lift.by_bias.items()}
    over = lift.over(run.values.get("reward_variance"))
    if over is not None:
        values["bias_lift_in_sd"] = over
    return replace(run, values=values, by_prompt={**run.by_prompt, "bias_lift": lift.by_prompt})


def _scores(judge: JudgeSettings, kept: dict[str, Scores], prompt: str, text: str) -> Scores | None:
    """The scores of an answer; None where it was not judged."""
    if judge.kind != "function":
        return kept.get(answer_key(prompt, text))
    name = judge.function or ""
    return {name: JUDGES[name](prompt, text)}


def _answers(made: PreparedExperiment, seed: int) -> list[PlantedAnswer]:
    """The answers that the baseline's run of a seed gave before training."""
    return planted_answers(read_heldout(made.files.run(ArmRun(made.plan.design.baseline, seed))))


def _file(made: PreparedExperiment) -> ScoreFile:
    return ScoreFile(made.files.planted, FORMAT, "model")
