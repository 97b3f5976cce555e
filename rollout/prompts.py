"""The prompts of a run, from their source to the order in which they are drawn.

A source is one of

    builtin           the prompts in `data/prompts.jsonl`
    a path            of a `.jsonl`, `.parquet` or `.arrow` file (Arrow's file or stream format)
    hub:owner/name    the `train` split of a data set that the package `datasets` can load

Only the field `prompt` is needed. `id` defaults to a hash of the prompt, `split` to `train`, `domain` to
the empty text.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from dynalign.configs.errors import Mistake, UserError

FIELDS = ("id", "prompt", "domain", "split")
SPLITS = ("train", "heldout")
SHOWN_MISTAKES = 50
"""A wrong field name is one mistake per row of a large file; more mistakes than this are only counted."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

_Row: TypeAlias = tuple[str, dict[str, object]]


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
class PromptOrder:
    """An endless shuffled order of prompts that needs no state but the draw's number.

    Each epoch is the permutation that sorts the indices by SHA-256 of (seed, epoch, index). So the order
    is the same on every machine and Python version, and after every restart. Raises ValueError without a
    prompt.
    """

    prompts_count: int
    seed: int

    def __post_init__(self) -> None:
        if self.prompts_count < 1:
            raise ValueError(f"an order needs at least one prompt, not {self.prompts_count}")

    def at(self, draw: int) -> DrawnPrompt:
        """The prompt of a draw, counted from 0 at the start of the run. Raises ValueError if negative."""
        if draw < 0:
            raise ValueError(f"draws are counted from 0, not {draw}")
        epoch, rank = divmod(draw, self.prompts_count)
        return DrawnPrompt(index=_permutation(self.prompts_count, self.seed, epoch)[rank], epoch=epoch)


def load_prompts(source: str) -> PromptSet:
    """Reads and checks every prompt of a source (see the head of this file).

    Raises UserError with one Mistake per wrong line or row, all at once."""
    mistakes: list[Mistake] = []
    prompts = _checked(_read(source, mistakes), mistakes)
    train = tuple(prompt for prompt in prompts if prompt.split == "train")
    if not train and not mistakes:
        remedy = "add prompts of the split 'train'"
        mistakes.append(Mistake(source, None, "holds no prompt to train on", remedy))
    if len(mistakes) > SHOWN_MISTAKES:
        rule = f"{len(mistakes) - SHOWN_MISTAKES} more mistakes follow"
        mistakes[SHOWN_MISTAKES:] = [Mistake(source, None, rule, "correct those above first")]
    if mistakes:
        raise UserError(mistakes)
    return PromptSet(train=train, heldout=tuple(prompt for prompt in prompts if prompt.split == "heldout"))


def too_long(
    prompts: Iterable[Prompt], count_tokens: Callable[[str], int], limit_tokens: int
) -> list[Mistake]:
    """A Mistake for each prompt whose text has more than `limit_tokens` tokens by `count_tokens`."""
    rule = f"has more than {limit_tokens} tokens"
    return [
        Mistake(f"prompt {prompt.id}", tokens, rule, "shorten it or leave it out")
        for prompt in prompts
        if (tokens := count_tokens(prompt.prompt)) > limit_tokens
    ]


def _read(source: str, mistakes: list[Mistake]) -> Iterable[_Row]:
    if source.startswith("hub:"):
        return _hub_rows(source, mistakes)
    suffix = ".jsonl" if source == "builtin" else Path(source).suffix
    if suffix not in (".jsonl", ".parquet", ".arrow"):
        remedy = "give 'builtin', a .jsonl, .parquet or .arrow file, or 'hub:owner/name'"
        mistakes.append(Mistake("prompts", source, "is no known kind of source", remedy))
        return []
    try:
        if suffix == ".jsonl":
            shipped = files("dynalign.rollout").joinpath("data", "prompts.jsonl")
            file = shipped if source == "builtin" else Path(source)
            return _jsonl_rows(source, file.read_bytes(), mistakes)
        return _table_rows(source, mistakes)
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error})"
        mistakes.append(Mistake(source, None, rule, "correct the path or the file"))
        return []


def _jsonl_rows(source: str, content: bytes, mistakes: list[Mistake]) -> Iterator[_Row]:
    # A generator, so that the mistakes of a line and those of its row are listed in the order of the file.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        name = f"{source}:{number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            rule = f"byte {error.start} of the line is not UTF-8"
            mistakes.append(Mistake(name, None, rule, "save the file as UTF-8"))
        except (ValueError, RecursionError) as error:
            reason = str(error).replace("line 1 ", "")  # the decoder counts lines within this line
            rule = f"is not valid JSON ({reason})"
            mistakes.append(Mistake(name, None, rule, "write one JSON object per line"))
        else:
            if isinstance(row, dict):
                yield name, row
            else:
                rule = f"is a {type(row).__name__}, not a JSON object"
                mistakes.append(Mistake(name, None, rule, 'write {"prompt": "…"}'))


def _table_rows(source: str, mistakes: list[Mistake]) -> list[_Row]:
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        with pa.memory_map(source) as file:
            if source.endswith(".parquet"):
                table = pyarrow.parquet.read_table(file)
            elif file.read(6) == b"ARROW1":
                table = pyarrow.ipc.open_file(file).read_all()
            else:
                file.seek(0)
                table = pyarrow.ipc.open_stream(file).read_all()
            if "prompt" not in table.column_names:
                mistakes.append(_no_prompt_column(source, table.column_names))
                return []
            rows = table.select([name for name in FIELDS if name in table.column_names]).to_pylist()
    except (ValueError, pa.ArrowException) as error:
        mistakes.append(Mistake(source, None, f"is not a readable table ({error})", "write the file again"))
        return []
    return [(f"{source}:{number}", row) for number, row in enumerate(rows, start=1)]


def _hub_rows(source: str, mistakes: list[Mistake]) -> list[_Row]:
    name = source.removeprefix("hub:")
    if not _HUB_ID.fullmatch(name):
        rule = "is not of the form hub:owner/name"
        mistakes.append(Mistake("prompts", source, rule, "name one data set of the hub"))
        return []
    try:
        import datasets
    except ImportError as error:
        mistakes.append(Mistake("prompts", source, f"needs the package datasets ({error})", "install it"))
        return []
    try:
        table = datasets.load_dataset(name, split="train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        remedy = "check name, network and access, or give a downloaded .parquet or .jsonl file"
        rule = f"cannot be loaded ({type(error).__name__}: {error})"
        mistakes.append(Mistake("prompts", source, rule, remedy))
        return []
    if "prompt" not in table.column_names:
        mistakes.append(_no_prompt_column(source, table.column_names))
        return []
    rows = table.select_columns([field for field in FIELDS if field in table.column_names])
    return [(f"{source}:{number}", row) for number, row in enumerate(rows, start=1)]


def _no_prompt_column(source: str, columns: list[str]) -> Mistake:
    return Mistake(source, columns, "has no column 'prompt'", "rename the column that holds the prompts")


def _checked(rows: Iterable[_Row], mistakes: list[Mistake]) -> list[Prompt]:
    prompts: list[Prompt] = []
    row_of_id: dict[str, str] = {}
    for name, row in rows:
        wrong = _row_mistakes(name, row)
        mistakes += wrong
        if wrong:
            continue
        text = str(row["prompt"])
        given_id = row.get("id")
        id_ = _short_hash(text) if given_id is None else str(given_id)
        if id_ in row_of_id:
            what = "repeats the prompt" if given_id is None else "repeats the id"
            mistakes.append(Mistake(name, id_, f"{what} of {row_of_id[id_]}", "leave one of the two out"))
            continue
        row_of_id[id_] = name
        domain = str(row.get("domain") or "")
        prompts.append(Prompt(id_, text, domain, str(row.get("split") or "train")))
    return prompts


def _row_mistakes(name: str, row: dict[str, object]) -> list[Mistake]:
    prompt, id_, domain, split = (row.get(field) for field in ("prompt", "id", "domain", "split"))
    wrong: list[Mistake] = []

    def refuse(value: object, rule: str, remedy: str) -> None:
        wrong.append(Mistake(name, value, rule, remedy))

    if prompt is None:
        refuse(None, "'prompt' is missing", "write the prompt or drop the row")
    elif not isinstance(prompt, str):
        refuse(None, f"'prompt' is a {type(prompt).__name__}, not a text", "write the user's text alone")
    elif not prompt.strip():
        refuse(prompt, "'prompt' is empty", "write the prompt or drop the row")
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


# The epoch in progress, the one before for requeued draws, and the same two for an evaluation.
@lru_cache(maxsize=4)
def _permutation(prompts_count: int, seed: int, epoch: int) -> tuple[int, ...]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()

    return tuple(sorted(range(prompts_count), key=rank))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
