"""The prompts of a run, from their source to the order in which they are drawn.

A source is one of

    builtin                 the prompts in `data/prompts.jsonl`
    a file                  .jsonl, .json, .csv, .tsv (each also as .gz), .parquet or .arrow (file or stream)
    a folder                of such files of one kind, or of a set that dynalign made
    hub:owner/name:split    a data set that the package `datasets` can load, `train` where no split is named

Only the prompt is needed: a text, or a list of messages whose last user turn is taken. `id` defaults to a
hash of the prompt, `split` to `train`, `domain` to the empty text. A text may stand more than once in one
split, and in one split only.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.prompts import PromptsSettings
from dynalign.rollout.prompt_files.columns import likely_column
from dynalign.rollout.prompt_files.json_rows import Row
from dynalign.rollout.prompt_sources import FIELDS, PLAIN, RowForm, read_rows

SPLITS = ("train", "heldout")
SHOWN_MISTAKES = 50
"""A wrong field name is one mistake per row of a large file; more mistakes than this are only counted."""
MOST_MISTAKES = 10_000
"""After so many, a source is not read on: it is of another kind than the user thinks."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_ROWS_PER_REPORT = 10_000


@dataclass(frozen=True)
class Prompt:
    """One task for the policy.

    Example:

        Prompt(id="craft-004", prompt="How do I mend a net?", domain="craft", split="train")
    """

    id: str
    """Unique in the source; a hash of the text where the source gives none."""
    prompt: str
    """The user's text as the source has it."""
    domain: str
    """Subject, for statistics; empty if the source gives none."""
    split: str
    """`train` or `heldout`."""


@dataclass(frozen=True)
class PromptSet:
    """The checked prompts of a run. Ids are unique over both splits.

    Example:

        PromptSet(train=(Prompt("a", "How do I mend a net?", "craft", "train"),), heldout=())
    """

    train: tuple[Prompt, ...]
    """Prompts that groups are drawn from, in source order; never empty."""
    heldout: tuple[Prompt, ...]
    """Prompts that are only evaluated, in source order."""

    @cached_property
    def content_hash(self) -> str:
        """16 hexadecimal characters of SHA-256 over all fields of all prompts, order included."""
        return _short_hash(json.dumps([astuple(prompt) for prompt in (*self.train, *self.heldout)]))

    @cached_property
    def repeated(self) -> int:
        """How many prompts have the text of another one before them. Each is drawn for itself."""
        texts = {prompt.prompt.strip() for prompt in (*self.train, *self.heldout)}
        return len(self.train) + len(self.heldout) - len(texts)


@dataclass(frozen=True)
class DrawnPrompt:
    """What one draw yields.

    Example, the third prompt of the source in the second pass: `DrawnPrompt(index=2, epoch=1)`.
    """

    index: int
    """Index of the prompt in `PromptSet.train`."""
    epoch: int
    """Complete passes over the prompts before this draw."""


@dataclass(frozen=True)
class OrderChange:
    """From one draw on, other prompts are drawn.

    Example: `OrderChange(first_draw=640, added=100, dropped=frozenset({3, 17}))`.
    """

    first_draw: int
    """The first draw that it counts for."""
    added: int
    """Prompts that follow the last one known before, in position."""
    dropped: frozenset[int]
    """Positions that are not drawn any more."""


class _Stretch(NamedTuple):
    """Draws between two changes."""

    first_draw: int
    first_epoch: int
    positions: int
    dropped: frozenset[int]

    @property
    def drawn(self) -> int:
        return self.positions - len(self.dropped)


@dataclass(frozen=True)
class PromptOrder:
    """An endless shuffled order of prompts that needs no state but the draw's number.

    Each epoch is the permutation that sorts the indices by SHA-256 of (seed, epoch, index). So the order
    is the same on every machine and Python version, and after every restart. A change begins a new epoch and
    moves no draw before it. Raises ValueError without a prompt, for changes out of order and for one that
    drops a prompt that is not there.
    """

    prompts_count: int
    seed: int
    changes: tuple[OrderChange, ...] = ()

    def __post_init__(self) -> None:
        if self.prompts_count < 1:
            raise ValueError(f"an order needs at least one prompt, not {self.prompts_count}")
        before = 0
        for change, stretch in zip(self.changes, self._stretches[1:], strict=True):
            beyond = any(not 0 <= position < stretch.positions for position in stretch.dropped)
            if change.first_draw < before or change.added < 0 or beyond or stretch.drawn < 1:
                raise ValueError(f"an order cannot be changed by {change}")
            before = change.first_draw

    @cached_property
    def _stretches(self) -> tuple[_Stretch, ...]:
        found = [_Stretch(0, 0, self.prompts_count, frozenset())]
        for change in self.changes:
            last = found[-1]
            draws = change.first_draw - last.first_draw
            epoch = last.first_epoch - (-draws // max(1, last.drawn))
            dropped = last.dropped | change.dropped
            found.append(_Stretch(change.first_draw, epoch, last.positions + change.added, dropped))
        return tuple(found)

    @property
    def positions(self) -> int:
        """Prompts that have a position, those that are not drawn any more included."""
        return self._stretches[-1].positions

    @property
    def dropped(self) -> frozenset[int]:
        """Positions that are not drawn any more."""
        return self._stretches[-1].dropped

    def changed(self, change: OrderChange) -> "PromptOrder":
        """The order with one more change."""
        return PromptOrder(self.prompts_count, self.seed, (*self.changes, change))

    def at(self, draw: int) -> DrawnPrompt:
        """The prompt of a draw, counted from 0 at the start of the run. Raises ValueError if negative."""
        if draw < 0:
            raise ValueError(f"draws are counted from 0, not {draw}")
        stretch = next(each for each in reversed(self._stretches) if each.first_draw <= draw)
        epochs, rank = divmod(draw - stretch.first_draw, stretch.drawn)
        epoch = stretch.first_epoch + epochs
        index = _permutation(stretch.positions, self.seed, epoch, stretch.dropped)[rank]
        return DrawnPrompt(index=index, epoch=epoch)


def run_prompts(settings: PromptsSettings, progress: Callable[[int], None] = lambda rows: None) -> PromptSet:
    """The prompts of a run, by its settings. Raises UserError like `load_prompts`."""
    return load_prompts(settings.source, progress, RowForm(settings.column, settings.earlier_turns))


def load_prompts(
    source: str, progress: Callable[[int], None] = lambda rows: None, form: RowForm = PLAIN
) -> PromptSet:
    """Reads and checks every prompt of a source (see the head of this file).

    progress: called now and then with the number of rows that were read. form: where a row has its prompt.
    Raises UserError with one Mistake per wrong line or row, all at once.
    """
    mistakes: list[Mistake] = []
    prompts = checked_prompts(read_rows(source, mistakes, form), mistakes, progress, form.column)
    train = tuple(prompt for prompt in prompts if prompt.split == "train")
    if not train and not mistakes:
        remedy = "add prompts of the split 'train'"
        mistakes.append(Mistake(source, None, "holds no prompt to train on", remedy))
    if len(mistakes) > SHOWN_MISTAKES:
        least = "at least " if len(mistakes) >= MOST_MISTAKES else ""
        rule = f"{least}{len(mistakes) - SHOWN_MISTAKES} more mistakes follow"
        mistakes[SHOWN_MISTAKES:] = [Mistake(source, None, rule, "correct those above first")]
    if mistakes:
        raise UserError(mistakes)
    return PromptSet(train=train, heldout=tuple(prompt for prompt in prompts if prompt.split == "heldout"))


def checked_prompts(
    rows: Iterable[Row], mistakes: list[Mistake], progress: Callable[[int], None], column: str
) -> list[Prompt]:
    """The prompts in rows. Adds a mistake for each wrong row. column: the user's name of the prompts."""
    prompts: list[Prompt] = []
    row_of_id: dict[str, str] = {}
    rows_of_text: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    times_without_id: dict[str, int] = {}
    for number, (name, row) in enumerate(rows, start=1):
        if number % _ROWS_PER_REPORT == 0:
            progress(number)
        if len(mistakes) >= MOST_MISTAKES:
            break
        wrong = _row_mistakes(name, row, column)
        mistakes += wrong
        if wrong:
            continue
        text = str(row["prompt"])
        given_id = row.get("id")
        id_ = _short_hash(text) if given_id is None else str(given_id)
        if given_id is None:
            times_without_id[text] = times_without_id.get(text, 0) + 1
            if times_without_id[text] > 1:
                id_ = f"{id_}-{times_without_id[text]}"
        if id_ in row_of_id:
            rule = f"repeats the id of {row_of_id[id_]}"
            mistakes.append(Mistake(name, id_, rule, "leave one of the two out"))
            continue
        row_of_id[id_] = name
        split = str(row.get("split") or "train")
        rows_of_text[split].setdefault(text.strip(), name)
        other = rows_of_text["heldout" if split == "train" else "train"].get(text.strip())
        if other is not None:
            rule = f"has the text of {other}, so that the evaluation would see a prompt that is trained on"
            mistakes.append(Mistake(name, id_, rule, "give both one split, or leave one of the two out"))
        prompts.append(Prompt(id_, text, str(row.get("domain") or ""), split))
    return prompts


def _row_mistakes(name: str, row: dict[str, object], column: str) -> list[Mistake]:
    prompt, id_, domain, split = (row.get(field) for field in ("prompt", "id", "domain", "split"))
    wrong: list[Mistake] = []

    def refuse(value: object, rule: str, remedy: str) -> None:
        wrong.append(Mistake(name, value, rule, remedy))

    if prompt is None:
        refuse(None, f"{column!r} is missing", _remedy_of_missing(row, column))
    elif not isinstance(prompt, str):
        refuse(None, f"{column!r} is a {type(prompt).__name__}, not a text", "write the user's text alone")
    elif not prompt.strip():
        refuse(prompt, f"{column!r} is empty", "write the prompt or drop the row")
    elif "\0" in prompt:
        refuse(None, f"{column!r} holds the character NUL, which no text has", "remove it")
    if isinstance(id_, bool) or not isinstance(id_, str | int | None) or id_ == "":
        refuse(id_, "'id' must be a text or an integer", "leave it out to use a hash of the prompt")
    if not isinstance(domain, str | None):
        refuse(domain, "'domain' must be a text", "write a text or leave it out")
    if split is not None and split not in SPLITS:
        refuse(split, "'split' must be 'train' or 'heldout'", "write one of the two or leave it out")
    for field in FIELDS:
        if isinstance(value := row.get(field), str) and _SURROGATE.search(value):
            refuse(None, f"{field!r} holds half of a surrogate pair, which is no character", "remove it")
    return wrong


def _remedy_of_missing(row: dict[str, object], column: str) -> str:
    """In a row without the column, the field that was probably meant."""
    others = [name for name, value in row.items() if name not in FIELDS and isinstance(value, str | list)]
    close = None if column in row and column != "prompt" else likely_column(column, others)
    return (
        f"did you mean {close!r}? set prompts.column={close}" if close else "write the prompt or drop the row"
    )


# The epoch in progress, the one before for requeued draws, and the same two for an evaluation.
@lru_cache(maxsize=4)
def _permutation(positions: int, seed: int, epoch: int, dropped: frozenset[int]) -> tuple[int, ...]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()

    return tuple(sorted((index for index in range(positions) if index not in dropped), key=rank))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
