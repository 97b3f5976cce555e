"""The third judge of an experiment: one model that trained no arm scores the held-out answers of all.

By default it is the model that the runs begin from, on an engine of our own. A score is kept in `judged.json`
once, by the answer's content, so that the report needs no model, and another call asks for what is missing.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.experiments.run_figures import RunFigures, last_scores
from dynalign.evaluation.pairwise.aspects import WHOLE
from dynalign.evaluation.pairwise.scoring import score_answers
from dynalign.launch.commands.evaluate_opening import Opener, OpenSubject
from dynalign.launch.commands.evaluate_subjects import Subject, engine_settings, subject
from dynalign.launch.commands.experiment_files import ArmRun, ExperimentFiles
from dynalign.launch.commands.experiment_plan import PreparedExperiment
from dynalign.launch.interrupts import run_async
from dynalign.launch.prompt_check import SlowWork
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.run_folder import durable
from dynalign.run_folder.heldout import HeldoutItem, reward_by_step
from dynalign.run_folder.metrics import read_heldout

FORMAT = "dynalign.judged/1"
ThirdJudge = Callable[[PreparedExperiment], None]
"""Sees to it that every answer has a score; tests bring their own."""
Scores = dict[str, float | None]
"""Answer, by its content → points; None for a verdict that cannot be read."""


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
    """Scores the answers that have no score yet. Raises UserError for a judge that is not there or another
    one than before, EndpointUnreachable or BudgetReached; what was answered is kept."""
    who = subject("judged_by", made.declared.judged_by or made.declared.settings.model)
    kept = read_scores(made.files, who.content)
    items = [item for run in made.runs for item in _answers(made.files.run(run))]
    missing = {answer_key(item): (item.prompt, item.completion) for item in items}
    asked = {key: pair for key, pair in missing.items() if key not in kept}
    if not asked:
        return
    opener = Opener(made.files.answers, engine_settings((), made.declared.settings))
    found = run_async(_scored(made, who, open_subject or opener, list(asked.values())))
    scores = kept | dict(zip(asked, found, strict=True))
    content = {"format": FORMAT, "judge": who.name, "content": who.content, "scores": scores}
    durable.write(made.files.judged, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


async def _scored(
    made: PreparedExperiment, who: Subject, open_subject: OpenSubject, pairs: Sequence[tuple[str, str]]
) -> list[float | None]:
    settings = made.declared.settings
    # Endpoints often give no log-probabilities of digits.
    how = JudgeSettings(scorer="expected" if who.endpoint is None else "sampled")
    values = settings.judge.values
    folder = None if values is None else user_path("judge.values", values)
    texts = load_value_texts(folder, "unified", how.scorer)
    async with open_subject(who, "judge") as asked:
        progress = SlowWork(f"of {len(pairs):,} answers scored by {who.name}")
        found = await score_answers(asked, texts, how, pairs, settings.seed, progress=progress)
    return [scores[WHOLE] for scores in found]


def with_judged(files: ExperimentFiles, runs: Sequence[RunFigures]) -> list[RunFigures]:
    """The runs' figures, with the third judge's scores where there are some."""
    scores = read_scores(files)
    if not scores:
        return list(runs)
    found = []
    for run in runs:
        if not run.by_prompt:
            found.append(run)
            continue
        answers = _answers(files.run(ArmRun(run.arm, run.seed)))
        scored = [replace(item, score=scores.get(answer_key(item))) for item in answers]
        points = last_scores(scored, prompted=False)
        gold = tuple(sorted(reward_by_step(scored).items()))
        found.append(
            replace(run, by_prompt={**run.by_prompt, "judged": points}, gold=gold) if points else run
        )
    return found


def read_scores(files: ExperimentFiles, content: str | None = None) -> Scores:
    """The scores that are kept. content: of the judge who is to give more of them; None: of any.

    Raises RecordError for a damaged file, UserError where another judge gave them."""
    try:
        kept = json.loads(files.judged.read_text("utf-8"))
        if kept["format"] != FORMAT:
            raise RecordError(f"{files.judged} has format {kept['format']!r}, this version reads {FORMAT}")
        judge = str(kept["judge"])
        same = content in (None, kept["content"])
        scores: Scores = dict(kept["scores"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{files.judged}: holds no scores ({error!r}); remove it") from error
    if not same:
        rule = f"{judge} has scored answers of this experiment"
        remedy = f"name it again, or remove {files.judged} to have all scored anew"
        raise UserError([Mistake("judged_by", None, rule, remedy)])
    return scores


def answer_key(item: HeldoutItem) -> str:
    """24 hexadecimal characters over prompt and answer."""
    text = json.dumps([item.prompt, item.completion], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _answers(folder: Path) -> list[HeldoutItem]:
    """The answers of all evaluations, without the system prompt."""
    return [item for item in read_heldout(folder) if not item.prompted]
