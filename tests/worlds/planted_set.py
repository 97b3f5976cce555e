"""A set of prompts with cells, as `dynalign prompts make` leaves it, without asking anybody."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dynalign.configs.sections.prompt_making import PromptMakingSettings
from dynalign.dataset.items import Cell
from dynalign.dataset.taxonomy import even_cells, load_taxonomy
from tests.worlds.planted_edits import composed


def set_of_cells(folder: Path, written: Callable[[str, Cell], str] = lambda text, cell: text) -> Path:
    """Writes 96 prompts, the last four held out, in which each part of life stands four times.

    written: makes the prompt of a text and its cell."""
    cells = even_cells(load_taxonomy(None, "task"), 96, 0)
    texts = composed(96, random.Random(1))
    rows = [
        {"id": f"p{place:06d}", "prompt": written(text, cell), "goal": f"goal {place}", **asdict(cell)}
        | {"split": "heldout" if place >= 92 else "train"}
        for place, (cell, text) in enumerate(zip(cells, texts, strict=True))
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = PromptMakingSettings(seed=7, threshold=70).model_dump(mode="json")
    (folder / "set.json").write_text(json.dumps({"format": 1, "identity": {}, "settings": settings}))
    return folder
