"""Evaluation sets that are on this machine already: the shipped held-out prompts, and known sets of the hub.

Nothing is downloaded: a set of the hub is present where an earlier download left it in the hub's cache.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from dynalign.configs.errors import Mistake
from dynalign.configs.user_paths import cache_folder
from dynalign.rollout.prompt_files.shards import kind
from dynalign.rollout.prompt_sources import RowForm, read_rows
from dynalign.rollout.prompts import load_prompts

BUILTIN_HELDOUT = "builtin held-out"
KNOWN = {
    "AIME 2024": "Maxwell-Jia/AIME_2024",
    "AIME 2025": "math-ai/aime25",
    "AlpacaEval": "tatsu-lab/alpaca_eval",
    "GPQA": "Idavidrein/gpqa",
    "GSM8K": "openai/gsm8k",
    "IFEval": "google/IFEval",
    "MATH-500": "HuggingFaceH4/MATH-500",
    "MMLU": "cais/mmlu",
    "MT-Bench": "HuggingFaceH4/mt_bench_prompts",
    "TruthfulQA": "truthfulqa/truthful_qa",
}
"""Name → data set of the hub."""
COLUMNS = ("prompt", "question", "Question", "problem", "Problem", "instruction", "input", "messages", "text")
"""Columns that hold the items' texts, the likeliest first."""


def hub_cache() -> Path:
    """The folder in which the hub's client keeps what it downloaded (HF_HUB_CACHE, HF_HOME)."""
    named = os.environ.get("HF_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else cache_folder() / "huggingface") / "hub"


def present_sets(cache: Path | None = None) -> dict[str, list[str]]:
    """Name → texts of every evaluation set that is on this machine.

    cache: the hub's cache; None for this user's.
    """
    found = {BUILTIN_HELDOUT: [prompt.prompt for prompt in load_prompts("builtin").heldout]}
    for name, hub_id in KNOWN.items():
        folder = (
            (hub_cache() if cache is None else cache) / f"datasets--{hub_id.replace('/', '--')}" / "snapshots"
        )
        texts = [text for file in _evaluation_files(folder) for text in texts_of(str(file), [])]
        if texts:
            found[name] = list(dict.fromkeys(texts))
    return found


def _evaluation_files(folder: Path) -> list[Path]:
    """The files of a set's snapshots, without its training split where it has another one."""
    files = [path for path in sorted(folder.rglob("*")) if kind(path) and path.is_file()]
    tests = [path for path in files if not path.name.startswith("train")]
    return tests or files


def texts_of(source: str, mistakes: list[Mistake], columns: Sequence[str] = COLUMNS) -> list[str]:
    """The texts of an evaluation set, in the first of the columns that it has.

    Adds the mistakes of the column with the most texts where none is without a mistake.
    """
    most = 0
    reported: list[Mistake] = []
    for column in columns:
        wrong: list[Mistake] = []
        texts = [
            str(row["prompt"])
            for _, row in read_rows(source, wrong, RowForm(column))
            if isinstance(row["prompt"], str) and row["prompt"].strip()
        ]
        if texts and not wrong:
            return texts
        if len(texts) > most or not reported:
            most = len(texts)
            reported = wrong
    rule = "holds no text to compare with"
    remedy = f"name the column one of: {', '.join(columns)}"
    mistakes += reported or [Mistake(source, None, rule, remedy)]
    return []
