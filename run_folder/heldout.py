"""Held-out answers and their mean rewards. `metrics.py` writes and reads them, as lines of
`heldout.jsonl`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class HeldoutItem:
    """One held-out answer.

    Example: `HeldoutItem(10, 1, "daily-0042", "How do I start?", False, 3.5, "Ask a friend.", 5, False, 7,
    8)`.
    """

    step: int
    """Trained steps when the evaluation was complete; 0 before training."""
    lineage: int
    """The lineage that evaluated."""
    prompt_id: str
    """Id of the prompt."""
    prompt: str
    """Its text."""
    prompted: bool
    """Whether the answer was sampled with the system prompt."""
    score: float | None
    """Points in 0..5; None if the verdict could not be read."""
    completion: str
    """The answer."""
    completion_tokens: int
    """Its length, in tokens."""
    truncated: bool
    """Whether it was cut at `rollout.max_completion_tokens`."""
    version_min: int | None = None
    """Oldest version, in steps, of the answer's tokens and, where the policy judges, of its verdict; None in
    a file of an earlier dynalign: that of `step`."""
    version_max: int | None = None
    """Newest version of them."""


def oldest_version(items: Sequence[HeldoutItem]) -> int | None:
    """The oldest version that an answer is of, in steps; None without any."""
    versions = (item.step if item.version_min is None else item.version_min for item in items)
    return min(versions, default=None)


def reward_mean(items: Sequence[HeldoutItem], prompted: bool) -> float | None:
    """Mean of the parsed scores with or without the system prompt, in points; None without any."""
    scores = [item.score for item in items if item.prompted == prompted and item.score is not None]
    return fmean(scores) if scores else None


def reward_by_step(items: Sequence[HeldoutItem]) -> dict[int, float]:
    """Evaluated step → mean reward without the system prompt. A step without any parsed score is left out."""
    steps = sorted({item.step for item in items})
    means = {
        step: reward_mean([item for item in items if item.step == step], prompted=False) for step in steps
    }
    return {step: mean for step, mean in means.items() if mean is not None}
