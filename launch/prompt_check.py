"""The prompts of a run as `check` and the driver read them: once, with a sign of progress, and measured.

A million prompts take half a minute to read and more to measure. So each says how far it is, and what was
found to fit is remembered beside the hash of the prompts and of what measured them.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import click

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.prompts import PromptsSettings
from dynalign.configs.tree import DEFAULT
from dynalign.configs.user_paths import cache_folder
from dynalign.launch.resume.open_run import OpenRun
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.judges.base import asks_engine
from dynalign.rollout.prompt_lengths import FEW, Lengths, too_long
from dynalign.rollout.prompt_sources import source_files
from dynalign.rollout.prompts import PromptSet, run_prompts

_SILENT_S = 2.0
"""Work that takes less says nothing."""
_EVERY_S = 5.0
_MEASURED_BY = ("tokenizer*", "*.jinja", "special_tokens_map.json", "vocab.*", "merges.txt")


class SlowWork:
    """Says on standard error how far a long piece of work is, now and then.

    what: what is counted, such as `prompts read`. clock: seconds that only grow. say: takes a line.
    """

    def __init__(
        self, what: str, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] | None = None
    ) -> None:
        self._what = what
        self._clock = clock
        self._say = say or (lambda line: click.echo(line, err=True))
        self._next_s = clock() + _SILENT_S

    def __call__(self, done: int) -> None:
        """done: how many there are so far."""
        if self._clock() >= self._next_s:
            self._say(f"{done:,} {self._what}")
            self._next_s = self._clock() + _EVERY_S


def prompts_of(settings: RunSettings) -> PromptSet:
    """The prompts of a run; a file that has not changed is read once per process.

    Raises UserError like `load_prompts`.
    """
    return _read_once(settings.prompts, _version(settings.prompts.source))


def _version(source: str) -> tuple[tuple[int, int], ...]:
    """Of each file, its time of change in nanoseconds and its size in bytes; empty without files."""
    with suppress(OSError, UserError):
        found = [path.stat() for _, path in source_files(source)]
        return tuple((file.st_mtime_ns, file.st_size) for file in found)
    return ()


@lru_cache(maxsize=1)
def _read_once(settings: PromptsSettings, version: tuple[tuple[int, int], ...]) -> PromptSet:
    return run_prompts(settings, SlowWork("prompts read"))


def long_prompts(settings: RunSettings, model: Path, contexts: Contexts, prompts: PromptSet) -> list[Mistake]:
    """A Mistake for each prompt that is too long, and a last one that counts those beyond the first ones.

    model: the folder of the tokenizer with which `contexts` counts.
    """
    every = (*prompts.train, *prompts.heldout)
    limit = settings.prompts.max_tokens
    remembered = _mark(limit, model, contexts, prompts) if len(every) > FEW else None
    if remembered is not None and remembered.exists():
        return []
    lengths = Lengths(limit, lambda text: len(contexts.sampling_context(text)), _counter(contexts))
    long, more = too_long(every, lengths, SlowWork(f"of {len(every):,} prompts measured"))
    if more:
        rule = f"{more} more prompts are longer than prompts.max_tokens={limit}"
        long.append(Mistake(settings.prompts.source, None, rule, "set prompts.max_tokens higher"))
    if remembered is not None and not long:
        with suppress(OSError):  # it is only quicker with it
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.touch()
    return long


def context_mistakes(
    settings: RunSettings, model: Path, contexts: Contexts, prompts: PromptSet | None
) -> list[Mistake]:
    """What only a tokenizer shows: digits that are not single tokens, prompts that are too long."""
    mistakes: list[Mistake] = []
    judge = settings.judge
    if judge.scorer == "expected" and asks_engine(settings):
        try:
            contexts.digit_ids(digits=list(map(str, judge.grades)))
        except UserError as error:
            mistakes += error.mistakes
    return mistakes if prompts is None else mistakes + long_prompts(settings, model, contexts, prompts)


def _counter(contexts: Contexts) -> Callable[[Sequence[str]], list[int]]:
    """Counts the tokens of texts in one batch, on all cores where the tokenizer can."""
    tokenizer = cast(Any, contexts.tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return count


def _mark(limit: int, model: Path, contexts: Contexts, prompts: PromptSet) -> Path | None:
    """The empty file whose existence says that these prompts fit. None for a user without a folder for it."""
    digest = hashlib.sha256(f"{limit} {prompts.content_hash} {contexts.sampling_context('')}".encode())
    for file in sorted(file for pattern in _MEASURED_BY for file in model.glob(pattern)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    try:
        return cache_folder() / "dynalign" / "prompts-that-fit" / digest.hexdigest()[:32]
    except UserError:
        return None


def heldout_mistakes(run: OpenRun, prompts: PromptSet | None) -> list[Mistake]:
    """The mistake of an evaluation on more held-out prompts than there are.

    The default is a most, not a wish: without a number of the user's, a few will do, but not none.
    """
    wanted = run.settings.heldout.prompts
    is_default = run.loaded.origins.get("heldout.prompts") == DEFAULT
    if prompts is None or wanted <= len(prompts.heldout) or (is_default and prompts.heldout):
        return []
    number = f"{len(prompts.heldout):,}" if prompts.heldout else "no"
    rule = f"{run.settings.prompts.source} has {number} held-out prompt{'' if number in ('no', '1') else 's'}"
    remedy = f"give some prompts the split heldout, or set heldout.prompts={len(prompts.heldout)}"
    return [Mistake("heldout.prompts", wanted, rule, remedy)]


def notes(settings: RunSettings, prompts: PromptSet | None) -> tuple[str, ...]:
    """What a user should know of the prompts before the run."""
    if prompts is None or not prompts.repeated:
        return ()
    every = len(prompts.train) + len(prompts.heldout)
    how_many = f"{prompts.repeated:,} of {every:,} prompts repeat"
    return (f"{settings.prompts.source}: {how_many} the text of another one; each is drawn for itself",)
