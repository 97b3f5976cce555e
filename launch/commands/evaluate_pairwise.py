"""`dynalign evaluate pairwise`: is a model better than another, by whose judgement, and how surely.

    refuse what can be refused ─► one model after the other: its answers ─► one judge after the other: its
    verdicts, scores ─► card (evaluation.html, .md, .json)

Answers and verdicts are in a journal (`answers.sqlite`) before they are used. A command that was killed is
run again and repeats at most what was in flight; another judge reads the answers that are there.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.pairwise.asking import AnswerSettings, Criterion
from dynalign.evaluation.pairwise.card import EvaluationCard, EvaluationFacts, as_json
from dynalign.evaluation.pairwise.external import ExternalItem, read_items
from dynalign.evaluation.pairwise.records import PairPrompt
from dynalign.launch.commands.evaluate_opening import Opener, OpenSubject
from dynalign.launch.commands.evaluate_prompts import evaluation_prompts
from dynalign.launch.commands.evaluate_subjects import (
    EvaluatedRun,
    Subject,
    engine_settings,
    run_subject,
    subject,
)
from dynalign.launch.commands.evaluate_work import EvaluationTask, card_of, evaluated
from dynalign.launch.interrupts import run_async
from dynalign.launch.output_folder import output_folder
from dynalign.launch.prompt_check import SlowWork
from dynalign.launch.report.evaluation_page import page
from dynalign.launch.report.evaluation_suites import suite_scores
from dynalign.launch.report.evaluation_tables import headline, markdown
from dynalign.rollout.judges.value_texts import ValueTexts, load_value_texts
from dynalign.run_folder import durable, layout

BUILTIN = "builtin"


@dataclass(frozen=True)
class PairwiseOptions:
    """What the command line says: `PairwiseOptions(run="quickstart", judges=("judge.yaml",))`."""

    run: str | None = None
    """A run, whose trained model is tested."""
    model: str | None = None
    """Instead of a run, the model under test."""
    against: str | None = None
    """The other model; None: the one that the run began from."""
    judges: tuple[str, ...] = ()
    """Models or endpoint files."""
    prompts: tuple[str, ...] = ()
    """Sources; empty: the run's own held-out prompts, or the shipped ones."""
    limit: int = 100
    """Most prompts of a source."""
    criterion: Criterion = "value"
    """What judges are asked for."""
    values: str | None = None
    """Folder of the value's texts; None: the run's, or the shipped ones."""
    prompted: bool = False
    """Whether the model under test is given the value's system prompt."""
    internalization: bool = False
    """Whether both models are asked with and without that prompt."""
    aspects: bool = False
    """Whether answers are scored by aspect and as a whole."""
    external: str | None = None
    """File or folder of HumanAgencyBench's rows."""
    scorer: Literal["expected", "sampled"] = "sampled"
    """How scores are made: `expected` or `sampled`."""
    max_tokens: int = 512
    """Most tokens of an answer."""
    judge_tokens: int = 256
    """Most tokens of a verdict."""
    temperature: float = 1.0
    """Of the models under test."""
    seed: int = 0
    """Of everything."""
    engine: tuple[str, ...] = ()
    """Settings of our own engines, as KEY=VALUE."""
    out: str | None = None
    """The card's folder; None: beside the run folder."""
    runs: str = "runs"
    """Folder of the run folders."""


@dataclass(frozen=True)
class EvaluationFiles:
    """Where a card goes: `EvaluationFiles(Path("runs/quickstart-evaluation"))`."""

    folder: Path
    """The folder; a card that is there already is replaced."""

    @property
    def html(self) -> Path:
        """The page."""
        return self.folder / "evaluation.html"

    @property
    def journal(self) -> Path:
        """Answers and verdicts."""
        return self.folder / layout.ANSWERS

    def write(self, card: EvaluationCard) -> None:
        """Writes page, Markdown and JSON. Raises OSError."""
        suites = suite_scores(self.folder)
        durable.write(self.html, page(card, suites))
        durable.write(self.folder / "evaluation.md", markdown(card, suites))
        durable.write(self.folder / "evaluation.json", as_json(card))


def evaluation_folder(run_folder: Path) -> Path:
    """Where the evaluation of a run is: beside its folder."""
    return run_folder.with_name(f"{run_folder.name}-evaluation")


def evaluate_pairwise(options: PairwiseOptions, open_subject: OpenSubject | None = None) -> int:
    """Compares two models; writes the card and prints its sentences. Returns 0, whichever model is better.

    open_subject: how a model is opened; None: endpoints by HTTP, others on our own engines. Raises UserError
    with every mistake before anything is started; EndpointUnreachable or BudgetReached when a model could not
    be asked to the end: the same command goes on from there."""
    files, opener, task = prepared(options)
    if open_subject is None:
        grades = options.scorer == "expected" and (task.aspects or bool(task.external))
        run_async(opener.examine((task.model, task.against), task.judges, grades))
    found = run_async(evaluated(task, open_subject or opener, SlowWork))
    card = card_of(task, found)
    files.write(card)
    for line in headline(card):
        print(line)
    print(f"the card: {files.html}, evaluation.md and evaluation.json beside it")
    return 0


def prepared(options: PairwiseOptions) -> tuple[EvaluationFiles, Opener, EvaluationTask]:
    """All that an evaluation starts from. Raises UserError with every mistake."""
    mistakes: list[Mistake] = []
    run = None if options.run is None else run_subject(options.run, options.runs)
    engine = engine_settings(options.engine, None if run is None else run.settings)
    tested = _subjects(options, run, mistakes)
    judges = _named(options.judges, "--judge", mistakes)
    if not options.judges:
        remedy = "name one or more: --judge MODEL or --judge endpoint.yaml"
        mistakes.append(Mistake("--judge", None, "is missing, and no model judges itself unasked", remedy))
    home = BUILTIN if run is None else run.settings.prompts.source
    prompts: tuple[PairPrompt, ...] = ()
    texts: tuple[ValueTexts, ValueTexts] | None = None
    external: tuple[ExternalItem, ...] = ()
    folder = Path()
    try:
        prompts = evaluation_prompts(options.prompts or (home,), options.limit, options.seed, home)
    except UserError as error:
        mistakes += error.mistakes
    try:
        texts = _texts(options, run)
        if options.external is not None:
            external = read_items(user_path("--external", options.external))
        folder = _folder(options, run)
    except UserError as error:
        mistakes += error.mistakes
    mistakes += _contradictions(options, tested)
    if mistakes or len(tested) < 2 or texts is None:
        raise UserError(mistakes)
    folder.mkdir(parents=True, exist_ok=True)
    task = EvaluationTask(
        facts=EvaluationFacts(
            title=options.run or options.model or "",
            content=tested[0].content,
            criterion=options.criterion,
            prompts=len(prompts),
            sources=tuple(dict.fromkeys(each.source for each in prompts)),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
            day=datetime.date.today().isoformat(),
        ),
        model=tested[0],
        against=tested[1],
        judges=tuple(judges),
        prompts=prompts,
        whole=texts[0],
        parts=texts[1],
        answers=AnswerSettings(options.max_tokens, options.temperature, options.seed),
        scores=JudgeSettings(scorer=options.scorer),
        judge_tokens=options.judge_tokens,
        prompted=options.prompted,
        internalization=options.internalization,
        aspects=options.aspects,
        external=external,
        home=home,
    )
    files = EvaluationFiles(folder)
    return files, Opener(files.journal, engine), task


def _subjects(options: PairwiseOptions, run: EvaluatedRun | None, mistakes: list[Mistake]) -> list[Subject]:
    """The model under test and the other one, as far as they are named rightly."""
    if (run is None) == (options.model is None):
        rule = "gives both a run and --model" if run is not None else "names no model to test"
        mistakes.append(Mistake("evaluate pairwise", None, rule, "give a run, or --model"))
    named = [] if options.model is None or run is not None else [(options.model, "--model")]
    against = options.against or (None if run is None else run.settings.model)
    if against is None:
        mistakes.append(Mistake("--against", None, "is missing", "name the model to compare with"))
    else:
        named.append((against, "--against"))
    found = [] if run is None else [run.subject]
    for text, place in named:
        found += _named([text], place, mistakes)
    return found


def _named(texts: Sequence[str], place: str, mistakes: list[Mistake]) -> list[Subject]:
    found: list[Subject] = []
    for text in texts:
        try:
            each = subject(place, text)
        except UserError as error:
            mistakes += error.mistakes
            continue
        if any(each.content == other.content for other in found):
            mistakes.append(Mistake(place, text, "is named twice", "leave one out"))
        if any(each.name == other.name for other in found):
            each = replace(each, name=f"{each.name} ({len(found) + 1})")
        found.append(each)
    return found


def _contradictions(options: PairwiseOptions, tested: Sequence[Subject]) -> list[Mistake]:
    found = []
    if len(tested) == 2 and tested[0].content == tested[1].content and not options.prompted:
        rule = "is the model under test itself: files or endpoint are the same"
        remedy = "name another model, or give one of them the system prompt with --prompted"
        found.append(Mistake("--against", options.against or tested[1].name, rule, remedy))
    if options.prompted and options.internalization:
        rule = "asks both models with and without the system prompt by itself"
        found.append(Mistake("--internalization", None, rule, "leave out --prompted"))
    return found


def _texts(options: PairwiseOptions, run: EvaluatedRun | None) -> tuple[ValueTexts, ValueTexts]:
    """The value's texts with the rubric of the whole, and with those of the aspects."""
    named = options.values or (None if run is None else run.settings.judge.values)
    folder = None if named is None else user_path("--values", named)
    whole = load_value_texts(folder, "unified", options.scorer)
    return whole, load_value_texts(folder, "factorized", options.scorer) if options.aspects else whole


def _folder(options: PairwiseOptions, run: EvaluatedRun | None) -> Path:
    if options.out is not None:
        return output_folder("--out", options.out)
    if run is not None:
        return output_folder("--out", str(evaluation_folder(run.folder)))
    name = (options.model or "model").rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml")
    return output_folder("--runs", options.runs, f"{name}-evaluation")
