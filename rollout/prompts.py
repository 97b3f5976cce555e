"""The prompts of a run, from their source to the order in which they are drawn.

A source is `builtin`, a `.jsonl`, `.parquet` or `.arrow` (file or stream format) path, or `hub:owner/name` for the `train`
split of a data set that the `datasets` package can load. Only the field `prompt` is needed; `id` defaults to a hash of the
prompt, `split` to `train`, `domain` to the empty string.
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
"""One wrong field name repeats on every row of a large file; past this number a count says as much as the lines."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

_Row: TypeAlias = tuple[str, dict[str, object]]


@dataclass(frozen=True)
class Prompt:
    """One task: `prompt` is the user's text as it stands in the source, `split` is `train` or `heldout`."""

    id: str
    prompt: str
    domain: str
    split: str


@dataclass(frozen=True)
class PromptSet:
    """The checked prompts of a run, in source order; ids are unique over both splits and `train` is never empty."""

    train: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]

    @cached_property
    def content_hash(self) -> str:
        """16 hexadecimal characters of SHA-256 over all fields of all prompts, order included."""
        return _short_hash(json.dumps([astuple(prompt) for prompt in (*self.train, *self.heldout)]))


@dataclass(frozen=True)
class DrawnPrompt:
    """What one draw yields: the index of a prompt, and how many whole passes over the prompts came before."""

    index: int
    epoch: int


@dataclass(frozen=True)
class PromptOrder:
    """An endless shuffled order of `prompts_count` prompts that needs no state but the draw number.

    Each epoch is the permutation that sorts the indices by SHA-256 of (seed, epoch, index), hence the same on every
    Python version and machine, and after every restart.
    """

    prompts_count: int
    seed: int

    def __post_init__(self) -> None:
        if self.prompts_count < 1:
            raise ValueError(f"an order needs at least one prompt, not {self.prompts_count}")

    def at(self, draw: int) -> DrawnPrompt:
        """The prompt of draw number `draw` ≥ 0, counted from the start of the run. Raises ValueError if negative."""
        if draw < 0:
            raise ValueError(f"draws are counted from 0, not {draw}")
        epoch, position = divmod(draw, self.prompts_count)
        return DrawnPrompt(index=_permutation(self.prompts_count, self.seed, epoch)[position], epoch=epoch)


def load_prompts(source: str) -> PromptSet:
    """Read and check every prompt of `source`. Raises UserError with one Mistake per wrong line or row, all at once."""
    mistakes: list[Mistake] = []
    prompts = _checked(_read(source, mistakes), mistakes)
    train = tuple(prompt for prompt in prompts if prompt.split == "train")
    if not train and not mistakes:
        mistakes.append(
            Mistake(source, None, "holds no prompt to train on", "add prompts of the split 'train'")
        )
    if mistakes:
        more = len(mistakes) - SHOWN_MISTAKES
        rest = (
            [Mistake(source, None, f"{more} more mistakes follow", "correct those above first")]
            if more > 0
            else []
        )
        raise UserError(mistakes[:SHOWN_MISTAKES] + rest)
    return PromptSet(train=train, heldout=tuple(prompt for prompt in prompts if prompt.split == "heldout"))


def too_long(
    prompts: Iterable[Prompt], count_tokens: Callable[[str], int], limit_tokens: int
) -> list[Mistake]:
    """A Mistake for each prompt whose text has more than `limit_tokens` tokens."""
    return [
        Mistake(
            f"prompt {prompt.id}",
            tokens,
            f"has more than {limit_tokens} tokens",
            "shorten it or leave it out",
        )
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
            file = (
                files("dynalign.rollout").joinpath("data", "prompts.jsonl")
                if source == "builtin"
                else Path(source)
            )
            return _jsonl_rows(source, file.read_bytes(), mistakes)
        return _table_rows(source, mistakes)
    except OSError as error:
        mistakes.append(
            Mistake(
                source, None, f"cannot be read ({error.strerror or error})", "correct the path or the file"
            )
        )
        return []


def _jsonl_rows(source: str, content: bytes, mistakes: list[Mistake]) -> Iterator[_Row]:
    # A generator, so that mistakes of the line and mistakes of its row are noted in the order of the file.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{source}:{number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            mistakes.append(
                Mistake(place, None, f"byte {error.start} of the line is not UTF-8", "save the file as UTF-8")
            )
        except (ValueError, RecursionError) as error:
            reason = str(error).replace("line 1 ", "")  # the decoder counts lines within this line
            mistakes.append(
                Mistake(place, None, f"is not valid JSON ({reason})", "write one JSON object per line")
            )
        else:
            if isinstance(row, dict):
                yield place, row
            else:
                mistakes.append(
                    Mistake(
                        place, None, f"is a {type(row).__name__}, not a JSON object", 'write {"prompt": "…"}'
                    )
                )


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
        mistakes.append(
            Mistake("prompts", source, "is not of the form hub:owner/name", "name one data set of the hub")
        )
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
        mistakes.append(
            Mistake("prompts", source, f"cannot be loaded ({type(error).__name__}: {error})", remedy)
        )
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
    place_of_id: dict[str, str] = {}
    for place, row in rows:
        wrong = _row_mistakes(place, row)
        mistakes += wrong
        if wrong:
            continue
        text = str(row["prompt"])
        given_id = row.get("id")
        id_ = _short_hash(text) if given_id is None else str(given_id)
        if id_ in place_of_id:
            what = "repeats the prompt" if given_id is None else "repeats the id"
            mistakes.append(Mistake(place, id_, f"{what} of {place_of_id[id_]}", "leave one of the two out"))
            continue
        place_of_id[id_] = place
        prompts.append(
            Prompt(
                id=id_,
                prompt=text,
                domain=str(row.get("domain") or ""),
                split=str(row.get("split") or "train"),
            )
        )
    return prompts


def _row_mistakes(place: str, row: dict[str, object]) -> list[Mistake]:
    prompt, id_, domain, split = (row.get(name) for name in ("prompt", "id", "domain", "split"))
    wrong: list[Mistake] = []
    if prompt is None:
        wrong.append(Mistake(place, None, "'prompt' is missing", "write the prompt or drop the row"))
    elif not isinstance(prompt, str):
        wrong.append(
            Mistake(
                place,
                None,
                f"'prompt' is a {type(prompt).__name__}, not a text",
                "write the user's text alone",
            )
        )
    elif not prompt.strip():
        wrong.append(Mistake(place, prompt, "'prompt' is empty", "write the prompt or drop the row"))
    if isinstance(id_, bool) or not isinstance(id_, str | int | None) or id_ == "":
        wrong.append(
            Mistake(
                place, id_, "'id' must be a text or an integer", "leave it out to use a hash of the prompt"
            )
        )
    if not isinstance(domain, str | None):
        wrong.append(Mistake(place, domain, "'domain' must be a text", "write a text or leave it out"))
    if split is not None and split not in SPLITS:
        wrong.append(
            Mistake(
                place, split, "'split' must be 'train' or 'heldout'", "write one of the two or leave it out"
            )
        )
    for name in FIELDS:
        if isinstance(value := row.get(name), str) and _SURROGATE.search(value):
            wrong.append(
                Mistake(
                    place,
                    None,
                    f"{name!r} holds half of a surrogate pair, which is no character",
                    "remove it",
                )
            )
    return wrong


@lru_cache(
    maxsize=4
)  # the epoch in progress, the one before for requeued draws, and the same for an evaluation
def _permutation(prompts_count: int, seed: int, epoch: int) -> tuple[int, ...]:
    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()

    return tuple(sorted(range(prompts_count), key=rank))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
