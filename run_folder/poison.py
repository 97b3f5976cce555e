"""`poison.jsonl`: prompts that broke one worker after another and were withheld. One JSON object per line,
appended."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dynalign.run_folder import layout

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoisonedPrompt:
    """A prompt that was withheld, for inspection.

    Example: `PoisonedPrompt(17, "p-17", "train", "Tie a knot.", ("worker-0",), 1767225600.0, 52, 3, 1)`.
    """

    prompt_index: int
    """Its index among the prompts of its split."""
    prompt_id: str
    """Its id in the prompt file."""
    split: str
    """`train` or `heldout`."""
    prompt: str
    """Its text."""
    workers: tuple[str, ...]
    """Names of the workers that died with it, in order."""
    time_s: float
    """When it was withheld, in Unix seconds."""
    group_id: int | None = None
    """The group that was withheld with it; None for a held-out prompt, which has no group."""
    attempt: int | None = None
    """The last attempt at this group."""
    lineage: int | None = None
    """The lineage of this attempt."""


def append(run_folder: Path, poisoned: Iterable[PoisonedPrompt]) -> None:
    """Adds a line per prompt, without the fields that are None. A full disk costs the lines, not the run."""
    lines = [{key: value for key, value in asdict(each).items() if value is not None} for each in poisoned]
    file = run_folder / layout.POISON
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    except OSError as error:
        logger.error("%s cannot be written: %s", file, error)


def read_poison(run_folder: Path) -> list[PoisonedPrompt]:
    """All complete lines; [] without the file."""
    file = run_folder / layout.POISON
    lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
    found = [json.loads(line) for line in lines]
    return [PoisonedPrompt(**each | {"workers": tuple(each["workers"])}) for each in found]
