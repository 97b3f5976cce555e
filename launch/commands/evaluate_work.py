"""The work of `evaluate pairwise`: answers of both models, then all that each judge is asked."""

from collections.abc import Callable
from dataclasses import dataclass

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.evaluation.pairwise.asking import (
    AnswerSettings,
    AskedSide,
    Criterion,
    PairJudge,
    judge_pairs,
    judge_template,
    write_answers,
)
from dynalign.evaluation.pairwise.aspects import AspectRow, Aspects, aspects
from dynalign.evaluation.pairwise.card import EvaluationCard, EvaluationFacts
from dynalign.evaluation.pairwise.external import ExternalItem, external_results
from dynalign.evaluation.pairwise.figures import pair_figures
from dynalign.evaluation.pairwise.internalization import internalization
from dynalign.evaluation.pairwise.records import (
    ComparedPrompt,
    Comparison,
    ModelAnswer,
    PairPrompt,
    PairVerdicts,
)
from dynalign.evaluation.pairwise.scoring import score_answers
from dynalign.evaluation.pairwise.transfer import transfer
from dynalign.launch.commands.evaluate_opening import OpenSubject
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.judges.value_texts import ValueTexts

Answered = tuple[ModelAnswer, ...]
Said = Callable[[str], Callable[[int], None]]
"""From what is counted to a function that takes the number so far."""


@dataclass(frozen=True)
class EvaluationTask:
    """All that an evaluation starts from; the fields are those of the command, read and checked.

    Example, shortened: `EvaluationTask(facts, Subject(…), Subject(…), judges=(Subject(…),), …)`.
    """

    facts: EvaluationFacts
    """What the card says of it."""
    model: Subject
    """The model under test."""
    against: Subject
    """The other one."""
    judges: tuple[Subject, ...]
    """Who judges."""
    prompts: tuple[PairPrompt, ...]
    """What both models are asked."""
    whole: ValueTexts
    """The value's texts with the rubric of the whole."""
    parts: ValueTexts
    """The same with the rubrics of the aspects."""
    answers: AnswerSettings
    """How the models answer."""
    scores: JudgeSettings
    """How scores are made."""
    judge_tokens: int
    """Most tokens of a verdict."""
    prompted: bool
    """Whether the model under test is given the system prompt."""
    internalization: bool
    """Whether both are also asked with it."""
    aspects: bool
    """Whether answers are scored by aspect."""
    external: tuple[ExternalItem, ...]
    """Answers with somebody else's scores."""
    home: str
    """The source of the prompts that the model was trained on."""

    @property
    def names(self) -> tuple[str, str]:
        """Of the two models, as the card calls them."""
        model = f"{self.model.name}, prompted" if self.prompted else self.model.name
        against = self.against.name
        return model, f"{against} (other)" if against == model else against


@dataclass(frozen=True)
class WrittenAnswers:
    """The answers of both models: `WrittenAnswers(model, against, (), ())`."""

    model: Answered
    """Of the model under test."""
    against: Answered
    """Of the other one, without the system prompt."""
    model_prompted: Answered
    """Of the model under test with the system prompt; empty if that is not asked for."""
    against_prompted: Answered
    """Of the other one with it."""


@dataclass(frozen=True)
class JudgeSaid:
    """All that one judge was asked: `JudgeSaid(verdicts, (), (), (), ())`."""

    verdicts: tuple[PairVerdicts, ...]
    """Of the two models."""
    model_prompted: tuple[PairVerdicts, ...]
    """Of the prompted model under test against the other one without the prompt."""
    against_prompted: tuple[PairVerdicts, ...]
    """Of the prompted other one against itself without the prompt."""
    aspects: tuple[AspectRow, ...]
    """Scores of both models' answers."""
    external: tuple[float | None, ...]
    """Scores of the answers with an external one."""


@dataclass(frozen=True)
class EvaluationAnswers:
    """All that was answered: `EvaluationAnswers(answers, (JudgeSaid(…),))`."""

    answers: WrittenAnswers
    """By the models under test."""
    judges: tuple[JudgeSaid, ...]
    """By each judge."""


async def evaluated(task: EvaluationTask, open_subject: OpenSubject, said: Said) -> EvaluationAnswers:
    """Asks both models, then each judge; one of them is open at a time."""
    system = task.whole.generation_system
    model, against = task.names
    of_model = [(model, system if task.prompted else None)]
    of_against: list[tuple[str, str | None]] = [(against, None)]
    if task.internalization:
        of_model.append((f"{model}, prompted", system))
        of_against.append((f"{against}, prompted", system))
    ours = await _written(task, task.model, of_model, open_subject, said)
    theirs = await _written(task, task.against, of_against, open_subject, said)
    answers = WrittenAnswers(ours[0], theirs[0], *(ours[1:] or [()]), *(theirs[1:] or [()]))
    judges = []
    for judge in task.judges:
        async with open_subject(judge, "judge") as asked:
            judges.append(await _judged(task, judge, asked, answers, said))
    return EvaluationAnswers(answers, tuple(judges))


async def _written(
    task: EvaluationTask,
    who: Subject,
    sides: list[tuple[str, str | None]],
    open_subject: OpenSubject,
    said: Said,
) -> list[Answered]:
    """One model's answers, for each (name, system prompt)."""
    async with open_subject(who, "evaluation") as asked:
        return [
            await write_answers(
                AskedSide(name, asked.asker, asked.model, system),
                task.prompts,
                task.answers,
                said(f"of {len(task.prompts)} answers by {name}"),
            )
            for name, system in sides
        ]


async def _judged(
    task: EvaluationTask, who: Subject, asked: AskedModel, answers: WrittenAnswers, said: Said
) -> JudgeSaid:
    criterion: Criterion = "general" if task.facts.criterion == "general" else "value"
    judge = PairJudge(
        who.name,
        asked.asker,
        asked.model,
        judge_template(criterion),
        task.whole.definition,
        task.judge_tokens,
        task.facts.seed,
    )

    async def pairs(ours: Answered) -> tuple[PairVerdicts, ...]:
        if not ours:
            return ()
        progress = said(f"of {len(task.prompts)} pairs judged by {who.name}")
        return await judge_pairs(judge, task.prompts, ours, answers.against, progress)

    return JudgeSaid(
        await pairs(answers.model),
        await pairs(answers.model_prompted),
        await pairs(answers.against_prompted),
        await _aspect_rows(task, who, asked, answers, said) if task.aspects else (),
        await _external_scores(task, who, asked, said) if task.external else (),
    )


async def _aspect_rows(
    task: EvaluationTask, who: Subject, asked: AskedModel, answers: WrittenAnswers, said: Said
) -> tuple[AspectRow, ...]:
    rows = [
        (name, prompt, answer.text)
        for name, written in zip(task.names, (answers.model, answers.against), strict=True)
        for prompt, answer in zip(task.prompts, written, strict=True)
    ]
    items = [(prompt.prompt, text) for _, prompt, text in rows]
    found = []
    for texts in (task.whole, task.parts):
        progress = said(f"of {len(items)} answers scored by {who.name}")
        found.append(
            await score_answers(asked, texts, task.scores, items, task.facts.seed, progress=progress)
        )
    return tuple(
        AspectRow(prompt.key, prompt.cluster, name, {**whole, **parts})
        for (name, prompt, _), whole, parts in zip(rows, *found, strict=True)
    )


async def _external_scores(
    task: EvaluationTask, who: Subject, asked: AskedModel, said: Said
) -> tuple[float | None, ...]:
    items = [(item.prompt, item.answer) for item in task.external]
    progress = said(f"of {len(items)} external answers scored by {who.name}")
    found = await score_answers(asked, task.whole, task.scores, items, task.facts.seed, progress=progress)
    return tuple(next(iter(scores.values())) for scores in found)


def card_of(task: EvaluationTask, found: EvaluationAnswers) -> EvaluationCard:
    """The card, from the answers alone."""
    answers = found.answers
    model, against = task.names
    compared = _comparison(task, model, answers.model, answers, [each.verdicts for each in found.judges])
    families = [task.model.family, task.against.family, *(judge.family for judge in task.judges)]
    seed = task.facts.seed
    two_by_two = None
    if task.internalization:
        ours = [each.model_prompted for each in found.judges]
        theirs = [each.against_prompted for each in found.judges]
        two_by_two = internalization(
            compared,
            _comparison(task, f"{model}, prompted", answers.model_prompted, answers, ours),
            _comparison(task, f"{against}, prompted", answers.against_prompted, answers, theirs),
        )
    names = [judge.name for judge in task.judges]
    scored: tuple[Aspects, ...] = tuple(
        aspects(name, each.aspects, model, against, seed)
        for name, each in zip(names, found.judges, strict=True)
        if each.aspects
    )
    outside = {
        name: external_results(task.external, each.external, seed)
        for name, each in zip(names, found.judges, strict=True)
        if each.external
    }
    figures = pair_figures(compared, families, seed)
    return EvaluationCard(
        task.facts, compared, figures, transfer(compared, task.home), two_by_two, scored, outside
    )


def _comparison(
    task: EvaluationTask,
    name: str,
    ours: Answered,
    answers: WrittenAnswers,
    verdicts: list[tuple[PairVerdicts, ...]],
) -> Comparison:
    rows = tuple(
        ComparedPrompt(prompt, answer, other, tuple(each[index] for each in verdicts))
        for index, (prompt, answer, other) in enumerate(zip(task.prompts, ours, answers.against, strict=True))
    )
    return Comparison(name, task.names[1], tuple(judge.name for judge in task.judges), rows)
