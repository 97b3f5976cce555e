"""`dynalign evaluate suite`: what a model can do and how it behaves, and whether it has lost anything.

    refuse what can be refused ─► power and cost ─► one model after the other: its answers
    ─► the harness's verdicts ─► table (suite-NAME.md, .json)

Answers are in a journal (`answers.sqlite`) before they are judged. A command that was killed is run again and
repeats at most what was in flight.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.user_paths import user_path
from dynalign.endpoint.outcome import most_completion_tokens, most_prompt_tokens
from dynalign.evaluation.suites.asking import Asking, ItemAnswers, ask_task, question_of, scores_of
from dynalign.evaluation.suites.figures import (
    ComparedTask,
    SuiteFigures,
    at_floor,
    losses,
    planned,
    task_figures,
)
from dynalign.evaluation.suites.harness import HarnessTask
from dynalign.evaluation.suites.preparing import LIMIT, prepared, suite_tasks
from dynalign.evaluation.suites.table import markdown, plan_line
from dynalign.launch.commands.evaluate_opening import Opener, OpenSubject
from dynalign.launch.commands.evaluate_pairwise import evaluation_folder
from dynalign.launch.commands.evaluate_subjects import Subject, engine_settings, run_subject, subject
from dynalign.launch.interrupts import run_async
from dynalign.launch.output_folder import output_folder
from dynalign.run_folder import durable, layout

SuiteAnswers = tuple[tuple[ItemAnswers, ...], ...]
"""Of one model: for each task, of each item."""


@dataclass(frozen=True)
class SuiteOptions:
    """What the command line says: `SuiteOptions("quick", run="quickstart")`."""

    suite: str
    """The suite's name."""
    run: str | None = None
    """A run, whose trained model is tested."""
    model: str | None = None
    """Instead of a run, the model under test."""
    against: str | None = None
    """The other model; None: the one that the run began from, and for `model` no other one."""
    only: tuple[str, ...] = ()
    """Tasks in the place of the suite's."""
    changes: tuple[str, ...] = ()
    """Changes of tasks, as TASK.repeats=8."""
    data: str | None = None
    """Folder with one file of items per task."""
    limit: int = LIMIT
    """Most items of a task."""
    temperature: float = 0.6
    """Of repeated answers."""
    seed: int = 0
    """Of repeated answers."""
    thinking_tokens: int = 0
    """Tokens for thinking, besides those of the task."""
    engine: tuple[str, ...] = ()
    """Settings of our own engines, as KEY=VALUE."""
    out: str | None = None
    """Folder of table and journal; None: beside the run folder."""
    runs: str = "runs"
    """Folder of the run folders."""


@dataclass(frozen=True)
class SuiteWork:
    """All that the command starts from: `SuiteWork("quick", subjects, tasks, opener, folder, options)`."""

    suite: str
    """The suite's name."""
    subjects: tuple[Subject, ...]
    """The model under test, and the other one where there is one."""
    tasks: tuple[HarnessTask, ...]
    """The tasks with their items."""
    opener: Opener
    """How models are opened."""
    folder: Path
    """Where table and journal are."""
    options: SuiteOptions
    """As given."""

    def how(self, model: str) -> Asking:
        """How a model is asked, under the name that it is served by."""
        options = self.options
        return Asking(model, options.temperature, options.seed, options.thinking_tokens)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models, as the table calls them."""
        first, *rest = (each.name for each in self.subjects)
        return first, *(f"{name} (other)" if name == first else name for name in rest)


def evaluate_suite(
    options: SuiteOptions, open_subject: OpenSubject | None = None, say: Callable[[str], None] = print
) -> int:
    """Asks a suite; writes and says its table. Returns 0, whatever the verdicts are.

    open_subject: how a model is opened; None: endpoints by HTTP, others on our own engines. Raises UserError
    with every mistake before anything is asked; EndpointUnreachable or BudgetReached when a model could not
    be asked to the end: the same command goes on from there."""
    work = prepared_suite(options)
    for line in lines_before(work):
        say(line)
    found = run_async(_answered(work, open_subject or work.opener))
    figures = suite_figures(work, found)
    table = markdown(figures)
    durable.write(work.folder / f"suite-{work.suite}.md", table)
    text = json.dumps(figures.as_json(), indent=1, ensure_ascii=False)
    durable.write(work.folder / f"suite-{work.suite}.json", text)
    say(table.rstrip("\n"))
    say(f"the table: {work.folder / f'suite-{work.suite}.md'}, and suite-{work.suite}.json beside it")
    return 0


def prepared_suite(options: SuiteOptions) -> SuiteWork:
    """All that a suite starts from. Raises UserError with every mistake."""
    mistakes: list[Mistake] = []
    tasks: tuple[HarnessTask, ...] = ()
    try:
        chosen = suite_tasks(options.suite, options.only, options.changes)
        data = None if options.data is None else user_path("--data", options.data)
        tasks = prepared(chosen, data, options.limit)
    except UserError as error:
        mistakes += error.mistakes
    try:
        run = None if options.run is None else run_subject(options.run, options.runs)
        engine = engine_settings(options.engine, None if run is None else run.settings)
    except UserError as error:
        raise UserError([*mistakes, *error.mistakes]) from None
    subjects = [] if run is None else [run.subject]
    if (run is None) == (options.model is None):
        rule = "names no model to test" if run is None else "gives both a run and --model"
        mistakes.append(Mistake("evaluate suite", None, rule, "give a run, or --model"))
    against = options.against or (None if run is None else run.settings.model)
    for place, text in (("--model", None if run else options.model), ("--against", against)):
        try:
            subjects += [] if text is None else [subject(place, text)]
        except UserError as error:
            mistakes += error.mistakes
    if len(subjects) == 2 and subjects[0].content == subjects[1].content:
        rule = "is the model under test itself: files or endpoint are the same"
        mistakes.append(Mistake("--against", against, rule, "name another model, or leave it out"))
    try:
        folder = _folder(options, None if run is None else run.folder)
    except UserError as error:
        raise UserError([*mistakes, *error.mistakes]) from None
    if mistakes:
        raise UserError(mistakes)
    folder.mkdir(parents=True, exist_ok=True)
    opener = Opener(folder / layout.ANSWERS, engine, sum(len(task.items) for task in tasks))
    return SuiteWork(options.suite, tuple(subjects), tasks, opener, folder, options)


def _folder(options: SuiteOptions, run: Path | None) -> Path:
    if options.out is not None:
        return output_folder("--out", options.out)
    if run is not None:
        return output_folder("--out", str(evaluation_folder(run)))
    name = Path(options.model or "model").name.removesuffix(".yaml")
    return output_folder("--runs", options.runs, f"{name}-evaluation")


def lines_before(work: SuiteWork) -> Iterator[str]:
    """What is said before anything is asked: the power of each comparison, then what the answers cost."""
    if len(work.subjects) > 1:
        sizes = [(task.task, len(task.items)) for task in work.tasks]
        for (task, items), plan in zip(sizes, planned(sizes), strict=True):
            yield plan_line(task, items, plan)
    questions = [question_of(task.task, item, work.how("")) for task in work.tasks for item in task.items]
    read = sum(map(most_prompt_tokens, questions))
    written = sum(map(most_completion_tokens, questions))
    answers = sum(question.n for question in questions)
    yield (
        f"each model: {len(questions):,} questions, {answers:,} answers; at most {read:,} tokens to read "
        f"and {written:,} to write"
    )
    for name, each in zip(work.names, work.subjects, strict=True):
        price = None if each.endpoint is None else _price(each.endpoint, read, written)
        if price:
            yield f"{name}: at most {price:.2f}, in the currency of its prices"


def _price(endpoint: EndpointSettings, read: int, written: int) -> float:
    return (read * (endpoint.input_price or 0.0) + written * (endpoint.output_price or 0.0)) / 1e6


async def _answered(work: SuiteWork, open_subject: OpenSubject) -> list[SuiteAnswers]:
    """The answers of each model; one of them is open at a time."""
    found = []
    for who in work.subjects:
        async with open_subject(who, "evaluation") as asked:
            answers = [await ask_task(asked.asker, task, work.how(asked.model)) for task in work.tasks]
        found.append(tuple(answers))
    return found


def suite_figures(work: SuiteWork, found: Sequence[SuiteAnswers]) -> SuiteFigures:
    """The figures, from the answers alone."""
    scores = [
        [scores_of(task, of_task) for task, of_task in zip(work.tasks, answers, strict=True)]
        for answers in found
    ]
    specs = [task.task for task in work.tasks]
    figures = [
        [task_figures(*each) for each in zip(specs, answers, of_model, strict=True)]
        for answers, of_model in zip(found, scores, strict=True)
    ]
    compares = len(found) > 1
    lost = losses(list(zip(specs, *scores, strict=True))) if compares else [None] * len(specs)
    plans = planned([(task.task, len(task.items)) for task in work.tasks])
    tasks = tuple(
        ComparedTask(
            spec.name,
            spec.title,
            spec.higher_is_better,
            spec.changed,
            figures[0][place],
            figures[1][place] if compares else None,
            lost[place],
            compares and at_floor(spec, scores[1][place]),
            plans[place],
        )
        for place, spec in enumerate(specs)
    )
    return SuiteFigures(work.suite, work.names[0], work.names[1] if compares else None, tasks)
