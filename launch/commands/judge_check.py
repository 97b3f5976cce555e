"""`dynalign judge check`: what a judge is worth, measured on held-out prompts before anything is trained.

    refuse what can be refused ─► engine, in this process (`judge_answers.py`) ─► the policy's candidates
    ─► each judge's scores of planted answers, of variants, of candidates ─► card ─► remembered for `train`

It needs no Ray but for another model in `judge.pool`: one engine, or none that holds a model with
`rollout.engine=deterministic`.
"""

import datetime
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from dynalign.actors.pool.names import pool_names
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun, load_run
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN, SELF, JudgeSettings
from dynalign.evaluation.attacks.corpus import FAMILIES
from dynalign.evaluation.judge_check.card import CardFacts, JudgeCard, as_json, make_card
from dynalign.evaluation.judge_check.given import given_answers
from dynalign.evaluation.judge_check.sheet import GoodAnswers
from dynalign.launch.checked_judges import CheckedJudge, remember
from dynalign.launch.commands.judge_answers import CheckedRun, NamedJudge, judge_answers, most_scores
from dynalign.launch.interrupts import run_async
from dynalign.launch.models.folder import download, folder_mistakes, model_folder
from dynalign.launch.output_folder import output_folder
from dynalign.launch.preflight import run_contexts, run_texts
from dynalign.launch.prompt_check import SlowWork, heldout_mistakes, prompts_of
from dynalign.launch.report.judge_card import page
from dynalign.launch.report.judge_tables import card_sections, markdown
from dynalign.launch.resume.open_run import open_run
from dynalign.rollout.judges.function import load_function
from dynalign.rollout.judges.make import missing_askers
from dynalign.run_folder import durable
from dynalign.run_folder.content import model_hashes, values_hashes

T = TypeVar("T")

_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class CardFiles:
    """Where the three forms of a card go: `CardFiles(Path("runs/quickstart-judge"))`."""

    folder: Path
    """The folder; what is there of an earlier check is replaced."""

    @property
    def html(self) -> Path:
        """The page."""
        return self.folder / "judge.html"

    def write(self, card: JudgeCard) -> None:
        """Writes all three. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.write(self.html, page(card))
        durable.write(self.folder / "judge.md", markdown(card))
        durable.write(self.folder / "judge.json", as_json(card))


def judge_check(
    config: str,
    overrides: Sequence[str],
    others: Sequence[str],
    answers: str | None,
    out: str | None,
    attacks: int,
) -> int:
    """Checks the judge of a run, and others beside it; writes the card and prints its sentences.

    others: settings of the section `judge`, as one text per judge, that differ from the run's. answers: a
    file of good answers; None: the policy's own. out: the card's folder; None: beside the run folder.
    attacks: of every family per prompt; 0: none.

    Returns 0, also for a judge below the bar. Raises UserError, with every mistake, before anything is
    started; EngineError when the engine fails.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    checked = prepared(config, overrides, others, answers, out, attacks)
    scores, of_attacks = most_scores(checked)
    vetoes = " and veto" if any(each.vetoes for each in checked.judges) else ""
    print(f"each judge{vetoes} is asked for at most {scores:,} scores, {of_attacks:,} of them for attacks")
    files = CardFiles(checked.folder)
    found = run_async(judge_answers(checked, SlowWork))
    card = make_card(
        _facts(checked), found.groups, found.members, [_samples(each) for each in checked.judges]
    )
    files.write(card)
    for section in card_sections(card):
        state = f" ({section.state})" if section.state else ""
        print(f"{section.title}{state}: {section.verdict}")
    print(f"the card: {files.html}, judge.md and judge.json beside it")
    if (cause := _remember(checked, card, files)) is not None:
        print(f"not remembered for `dynalign train`: {cause}")
    return 0


def prepared(
    config: str,
    overrides: Sequence[str],
    others: Sequence[str],
    answers: str | None,
    out: str | None,
    attacks: int,
) -> CheckedRun:
    """All that a check starts from. Raises UserError with every mistake."""
    loaded = load_run(config, overrides)
    run = loaded.settings
    mistakes: list[Mistake] = []
    collect = _Collecting(mistakes)
    if attacks < 0:
        mistakes.append(Mistake("--attacks", attacks, "is below 0", "give a number of each family, or 0"))
    judges = _judges(config, overrides, others, loaded, collect)
    prompts = collect(lambda: prompts_of(run))
    mistakes += heldout_mistakes(open_run(loaded), prompts)
    heldout = () if prompts is None else prompts.heldout[: run.heldout.prompts]
    if run.heldout.prompts == 0:
        rule = "leaves no prompt on which a judge could be checked"
        mistakes.append(Mistake("heldout.prompts", 0, rule, "set heldout.prompts=16"))
    elif run.heldout.prompts == 1:
        rule = "leaves no other prompt, whose answer could be planted"
        mistakes.append(Mistake("heldout.prompts", 1, rule, "set heldout.prompts=16"))
    good = None if answers is None or not heldout else collect(lambda: given_answers(answers, heldout))
    folder = collect(lambda: _folder(run, out))
    model = collect(lambda: model_folder(run.model))
    if isinstance(model, str):
        model = None if mistakes else collect(lambda: download(str(model)))
    if isinstance(model, Path):
        mistakes += folder_mistakes(model)
    for each in judges:
        known = {FROZEN, *pool_names(each.run), *each.run.judge.endpoints}
        mistakes += [mistake for mistake in missing_askers(each.run.judge, known) if mistake not in mistakes]
    mistakes += _of_one_name(judges)
    if mistakes or not isinstance(model, Path) or folder is None or not judges:
        raise UserError(mistakes)
    contexts = collect(lambda: run_contexts(run, model, judges[0].texts))
    if contexts is not None and any(_asks_for_digits(each.run.judge) for each in judges):
        collect(contexts.digit_ids)
    if mistakes or contexts is None:
        raise UserError(mistakes)
    return CheckedRun(run, tuple(judges), model, contexts, tuple(heldout), folder, good, answers, attacks)


def _of_one_name(judges: Sequence[NamedJudge]) -> list[Mistake]:
    """The mistakes of judges that mean different endpoints by one name, or different pools."""
    mistakes: list[Mistake] = []
    of_name: dict[str, object] = {}
    for each in judges:
        judge = each.run.judge
        named: dict[str, object] = {f"judge.endpoints.{name}": of for name, of in judge.endpoints.items()}
        if judge.pool is not None:
            named["judge.pool"] = judge.pool
        for place, settings in named.items():
            if of_name.setdefault(place, settings) != settings:
                rule = f"is another one for {each.name} than for a judge before"
                mistakes.append(Mistake(place, None, rule, "check these judges one after the other"))
    return mistakes


class _Collecting:
    """Calls, and collects the mistakes that they raise."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self._mistakes = mistakes

    def __call__(self, call: Callable[[], T]) -> T | None:
        """The result; None if the call raises UserError."""
        try:
            return call()
        except UserError as error:
            self._mistakes += [mistake for mistake in error.mistakes if mistake not in self._mistakes]
            return None


def _judges(
    config: str,
    overrides: Sequence[str],
    others: Sequence[str],
    loaded: LoadedRun,
    collect: _Collecting,
) -> list[NamedJudge]:
    """The judge of the run, and the others, each with a name of its own."""
    found: list[NamedJudge] = []
    for changed in (None, *others):
        run = loaded.settings
        if changed is not None:
            other = collect(partial(_changed, config, overrides, changed))
            if other is None:
                continue
            run = other
        texts = collect(partial(run_texts, run))
        if run.judge.kind == "function":
            collect(partial(load_function, run.judge.function or ""))
        if any(each.run.judge == run.judge for each in found):
            collect(partial(_refuse_twin, changed or ""))
            continue
        name = judge_name(run.judge)
        if any(each.name == name for each in found):
            name = f"{name} ({changed})"
        if texts is not None:
            found.append(NamedJudge(name, run, texts))
    return found


def _changed(config: str, overrides: Sequence[str], changed: str) -> RunSettings:
    """The settings with another judge. Raises UserError for keys of other sections."""
    try:
        keys = shlex.split(changed)
    except ValueError:  # a quotation mark without its second
        keys = []
    foreign = [key for key in keys if not key.startswith("judge.")]
    if foreign or not keys:
        rule = "changes more than the judge" if foreign else "names no other judge"
        remedy = 'give keys of the section judge, as in --judge "judge.scorer=sampled judge.samples=4"'
        raise UserError([Mistake("--judge", changed, rule, remedy)])
    return load_run(config, [*overrides, *keys]).settings


def _refuse_twin(changed: str) -> None:
    rule = "is a judge that is checked already"
    raise UserError([Mistake("--judge", changed, rule, "leave it out, or change a setting of it")])


def judge_name(judge: JudgeSettings) -> str:
    """What the card calls a judge: `self, expected, unified`."""
    if judge.kind == "function":
        return f"function {judge.function}" + (f", veto {' '.join(judge.veto)}" if judge.veto else "")
    samples = f", {judge.samples} samples" if judge.samples > 1 else ""
    whom = " ".join((judge.kind, *(judge.stances or judge.models)))
    rounds = f", {judge.rounds} rounds" if judge.kind == "panel" else ""
    vetoes = f", veto {' '.join(judge.veto)}" if judge.veto else ""
    return f"{whom}, {judge.scorer}, {judge.rubric}{rounds}{samples}{vetoes}"


def _asks_for_digits(judge: JudgeSettings) -> bool:
    """Whether the policy's tokenizer has to have the grades as single tokens."""
    return judge.scorer == "expected" and bool({SELF, FROZEN} & {*judge.asked})


def _samples(judge: NamedJudge) -> int:
    return judge.run.judge.samples if judge.run.judge.scorer == "sampled" else 1


def _folder(run: RunSettings, out: str | None) -> Path:
    """The card's folder. Raises UserError if it cannot be written to."""
    if out is None:
        return output_folder("runs", run.runs, f"{run.name}-judge")
    return output_folder("--out", out)


def _facts(checked: CheckedRun) -> CardFacts:
    run = checked.run
    own = "the policy's own: its first candidate that has a text"
    good = checked.good or GoodAnswers({}, {})
    source = own if checked.good is None else f"{len(good.answers)} from {checked.answers_file}"
    return CardFacts(
        run=run.name,
        model=run.model,
        prompts=len(checked.prompts),
        group_size=run.rollout.group_size,
        good_answers=source,
        attacks=f"{checked.attacks} of each of {len(FAMILIES)} families per prompt"
        if checked.attacks
        else "none",
        engine=f"{run.rollout.engine}, {run.rollout.dtype}",
        day=datetime.date.today().isoformat(),
    )


def _remember(checked: CheckedRun, card: JudgeCard, files: CardFiles) -> str | None:
    """Keeps each judge's figure for `train`. Returns why it could not be kept; None if it was."""
    try:
        of_model = model_hashes(checked.model)
        for judge, figures in zip(checked.judges, card.judges, strict=True):
            asks = judge.run.judge.kind != "function"
            texts = values_hashes(judge.texts.definition_hash, judge.texts.rubric_hash if asks else None)
            overall = figures.overall.auc
            kept = CheckedJudge(
                auc=overall.mean if overall else None,
                low=overall.low if overall else None,
                unread=figures.unread_share,
                prompts=card.facts.prompts,
                day=card.facts.day,
                card=str(files.html),
            )
            remember(of_model | texts, judge.run.judge, kept)
    except OSError as error:
        return error.strerror or str(error)
    return None
