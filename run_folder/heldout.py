"""Held-out answers and their mean rewards. `run_folder/metrics.py` writes and reads them, as lines of `heldout.jsonl`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class HeldoutItem:
    """One held-out answer. `score` is None if the verdict could not be read; `prompted`: the system prompt was there."""

    step: int
    lineage: int
    prompt_id: str
    prompt: str
    prompted: bool
    score: float | None
    completion: str
    completion_tokens: int
    truncated: bool


def reward_mean(items: Sequence[HeldoutItem], prompted: bool) -> float | None:
    """Mean of the parsed scores of one context; None without any."""
    scores = [item.score for item in items if item.prompted == prompted and item.score is not None]
    return fmean(scores) if scores else None


def reward_by_step(items: Sequence[HeldoutItem]) -> dict[int, float]:
    """Mean reward without the system prompt, by evaluated step; a step without any parsed score is left out."""
    steps = sorted({item.step for item in items})
    means = {
        step: reward_mean([item for item in items if item.step == step], prompted=False) for step in steps
    }
    return {step: mean for step, mean in means.items() if mean is not None}
