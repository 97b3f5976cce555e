"""The prompts that an evaluation asks: of one source, or of several, with the goals that a source names."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.pairwise.records import PairPrompt
from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.prompts import Prompt, load_prompts


def evaluation_prompts(sources: Sequence[str], limit: int, seed: int, home: str) -> tuple[PairPrompt, ...]:
    """At most `limit` prompts of each source: its held-out ones, or all where it has none.

    home: the source that the model was trained on; of it only held-out prompts are asked. Which ones is
    decided by a hash, so that a smaller limit asks a part of the same prompts. Raises UserError with the
    mistakes of all sources."""
    mistakes: list[Mistake] = []
    found: list[PairPrompt] = []
    for source in dict.fromkeys(sources):
        try:
            found += _of_source(source, limit, seed, home)
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        raise UserError(mistakes)
    return tuple(found)


def _of_source(source: str, limit: int, seed: int, home: str) -> list[PairPrompt]:
    prompts = load_prompts(source)
    if not prompts.heldout and source == home:
        rule = "is what the model was trained on, and has no held-out prompts"
        raise UserError([Mistake("--prompts", source, rule, "give prompts that were not trained on")])
    chosen = sorted(prompts.heldout or prompts.train, key=lambda each: request_seed(seed, "prompt", each.id))
    goals = _goals(source)
    return [_pair_prompt(each, source, goals) for each in chosen[:limit]]


def _pair_prompt(prompt: Prompt, source: str, goals: dict[str, str]) -> PairPrompt:
    goal = goals.get(prompt.prompt.strip())
    cluster = f"{source}/{prompt.id}" if goal is None else f"{source}/goal {goal}"
    return PairPrompt(prompt.id, prompt.prompt, source, cluster)


def _goals(source: str) -> dict[str, str]:
    """Text of a prompt → its goal, of a JSON Lines file whose rows have a field `goal`; {} for all others."""
    if source == "builtin" or source.startswith("hub:"):
        return {}
    path = user_path("--prompts", source)
    file = path / "prompts.jsonl" if path.is_dir() else path
    return _goals_of(file) if file.suffix == ".jsonl" else {}


def _goals_of(file: Path) -> dict[str, str]:
    goals = {}
    with suppress(OSError, ValueError):  # `load_prompts` has read the file, and says what is wrong with it
        for line in file.read_text("utf-8-sig").splitlines():
            row = json.loads(line) if line.strip() else {}
            if row.get("goal") and isinstance(row.get("prompt"), str):
                goals[row["prompt"].strip()] = str(row["goal"])
    return goals
