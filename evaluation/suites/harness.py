"""lm-evaluation-harness, the one place that imports it: its tasks on given items, and its verdicts.

The questions are its templates and the verdicts its code. Not used are its loop, its model classes and its
loader of data, so that an answer is durable before it is judged and nothing is fetched.
"""

import logging
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from dynalign.configs.errors import Mistake, UserError
from dynalign.evaluation.suites.items import Row
from dynalign.evaluation.suites.tasks import SuiteTask

SEED = 0
"""Of the order of GPQA's options, and of the letter that IFEval draws for one that is none."""
WRONG_ITEMS = (KeyError, TypeError, ValueError, AttributeError, IndexError, UndefinedError)
"""What the harness's templates and functions raise for rows of another set."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NEEDS_PUNKT = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Instructions of IFEval that are checked with nltk's table `punkt_tab`."""
NO_PUNKT_MESSAGE = (
    "name a folder in NLTK_DATA that holds tokenizers/punkt_tab; with a network, "
    "`python -m nltk.downloader -d FOLDER punkt_tab` makes one"
)


@dataclass(frozen=True)
class Item:
    """What is asked about one item: `Item("knowledge/3", "What is …?\\n(A) …", ("A", "B", "C", "D"))`."""

    id: str
    """The task's name and the item's number."""
    question: str
    """The user's message."""
    labels: tuple[str, ...] = ()
    """The options' labels in the harness's order of the options; empty where the model writes freely."""


@dataclass(frozen=True)
class _Prepared:
    """The harness's own objects of an item."""

    doc: Row
    instance: Any


class HarnessTask:
    """A task of the harness on given items."""

    def __init__(self, task: SuiteTask, rows: Sequence[Row]) -> None:
        """Raises UserError if the items are not of this task, if the harness is not installed, or if items
        need nltk's data and it is missing."""
        self.task = task
        _refuse_missing(task, rows)
        with _deterministic(), _silent():
            self._harness = _opened(task, rows)
            docs = list(self._harness.eval_docs)
            self._cuts: tuple[str, ...] = ()
            if task.kind == "text":
                self._cuts = tuple((self._harness.config.generation_kwargs or {}).get("until") or ())
            try:
                prepared = [self._prepared(number, doc) for number, doc in enumerate(docs)]
                self._items = [each for _, each in prepared]
                self.items: tuple[Item, ...] = tuple(item for item, _ in prepared)
                """What is asked, in the order of the rows."""
                self._answer([""] * len(docs))
                self._score(self._items[0])  # some columns are read by the verdict alone
            except WRONG_ITEMS as error:
                raise _wrong_items(task, error) from None

    def scores(self, answers: Sequence[str | None]) -> list[float | None]:
        """The harness's score of each item's answer; None for an item without one.

        answers: what the model wrote, its thinking taken off. For labelled options: the label, or "" for an
        answer that names none, which is wrong as the harness sees it."""
        with _deterministic():
            self._answer(answers)
            return [
                None if answer is None else self._score(each)
                for answer, each in zip(answers, self._items, strict=True)
            ]

    def _answer(self, answers: Sequence[str | None]) -> None:
        for answer, each in zip(answers, self._items, strict=True):
            each.instance.resps = [self._cut(answer or "")]
        self._harness._instances = [each.instance for each in self._items]
        if self.task.kind == "text":
            self._harness.apply_filters()

    def _score(self, each: _Prepared) -> float:
        if self.task.kind == "text":
            result = self._harness.process_results(
                each.doc, [each.instance.filtered_resps[self.task.answer_filter]]
            )
            return float(result[self.task.metric])
        labels = self.items[each.instance.doc_id].labels
        (answer,) = each.instance.resps
        likelihoods = [(0.0 if label == answer else -1e9, label == answer) for label in labels]
        score = float(self._harness.process_results(each.doc, likelihoods)[self.task.metric])
        return score if answer in labels else 0.0

    def _cut(self, answer: str) -> str:
        """The answer up to the first of the harness's stop strings, which an endpoint is not told."""
        ends = [answer.find(cut) for cut in self._cuts if cut and cut in answer]
        return answer[: min(ends)] if ends else answer

    def _prepared(self, number: int, doc: Row) -> tuple[Item, _Prepared]:
        name = f"{self.task.name}/{number}"
        question = str(self._harness.doc_to_text(doc))
        metadata = (self.task.name, number, 1)
        made = self._harness.construct_requests(doc=doc, ctx=question, metadata=metadata)
        instance = made[0] if isinstance(made, list) else made
        labels: tuple[str, ...] = ()
        if self.task.kind != "text":
            options = [str(option) for option in self._harness.doc_to_choice(doc)]
            labels = _labels_of(options) if self.task.kind == "labels" else tuple(LETTERS[: len(options)])
            if self.task.kind == "lettered":
                question, labels = _listed(question, options, random.Random(f"{SEED} {name}"))
        return Item(name, question + self.task.suffix, labels), _Prepared(doc, instance)


def _labels_of(options: Sequence[str]) -> tuple[str, ...]:
    """` (A)` → `A`. Raises ValueError for options that are no labels."""
    labels = tuple(option.strip().strip("().") for option in options)
    if not all(re.fullmatch(r"[A-Z]|Yes|No", label) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"its options are no labels: {options}")
    return labels


def _listed(question: str, options: Sequence[str], order: random.Random) -> tuple[str, tuple[str, ...]]:
    """A question with its options below it, lettered in a drawn order; and the letters in the given order.

    The order is drawn, since a data set may name the right option first."""
    if not 1 < len(options) <= len(LETTERS):
        raise ValueError(f"it has {len(options)} options, where 2 to {len(LETTERS)} can be lettered")
    places = list(range(len(options)))
    order.shuffle(places)
    lines = [f"({letter}) {options[place]}" for letter, place in zip(LETTERS, places, strict=False)]
    letters = tuple(LETTERS[places.index(place)] for place in range(len(options)))
    return "\n".join([question, *lines]), letters


def _opened(task: SuiteTask, rows: Sequence[Row]) -> Any:
    """The harness's task. The items stand for each of its splits, of which it asks one."""
    import datasets

    with _no_download():
        import lm_eval.tasks
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(Path(lm_eval.tasks.__file__).parent / task.yaml)
    config.pop("tag", None)
    config["metadata"] = {}
    if task.text_field is not None:
        config["doc_to_text"] = task.text_field
    splits = {config.get(f"{name}_split") for name in ("training", "validation", "test", "fewshot")} - {None}
    try:
        held = datasets.Dataset.from_list([dict(row) for row in rows])
        given = datasets.DatasetDict(dict.fromkeys(sorted(splits), held))
        config["custom_dataset"] = lambda **_: given
        return ConfigurableTask(config=config)
    except WRONG_ITEMS as error:
        raise _wrong_items(task, error) from None


def _wrong_items(task: SuiteTask, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:120]
    rule = f"are not those of {task.source.path}: {type(error).__name__}: {said}"
    remedy = f"give the items of {task.source.path} with all columns, as they are published"
    return UserError([Mistake(f"the items of {task.name}", None, rule, remedy)])


def _refuse_missing(task: SuiteTask, rows: Sequence[Row]) -> None:
    """Refuses where the harness is not installed, or nltk's table is missing, which the harness would fetch
    when it is imported, and without which it ends in the middle."""
    if find_spec("lm_eval") is None:
        rule = "needs lm-evaluation-harness, which is not installed"
        raise UserError([Mistake(f"the task {task.name}", None, rule, "pip install 'dynalign[evaluate]'")])
    asked = {str(name) for row in rows for name in row.get("instruction_id_list") or ()}
    if not asked & NEEDS_PUNKT or has_punkt():
        return
    rule = "has instructions on sentences or capital words, which need nltk's table punkt_tab; it is missing"
    raise UserError([Mistake(f"the task {task.name}", None, rule, NO_PUNKT_MESSAGE)])


def has_punkt() -> bool:
    """Whether nltk finds its table of sentence ends."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english")
    except LookupError:
        return False
    return True


@contextmanager
def _no_download() -> Iterator[None]:
    """On import the harness fetches nltk's data, but only in the first process of a machine."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        yield
    finally:
        os.environ.pop("LOCAL_RANK")
        if before is not None:
            os.environ["LOCAL_RANK"] = before


@contextmanager
def _deterministic() -> Iterator[None]:
    """The harness draws from the global generator, and langdetect from its own."""
    from langdetect import DetectorFactory

    before = random.getstate()
    random.seed(SEED)
    DetectorFactory.seed = SEED
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _silent() -> Iterator[None]:
    """No warnings of the harness about settings that are ours, and no progress bars of milliseconds."""
    import datasets

    logger = logging.getLogger("lm_eval")
    before = logger.level
    shown = datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)
        if shown:
            datasets.enable_progress_bars()
