"""Answers to the capability probe with their scores. `metrics.py` writes and reads them, as lines of
`capability.jsonl`."""

from collections.abc import Iterable
from dataclasses import dataclass

BEFORE_TRAINING = 0
"""The point of the initial policy, with which every later one is compared."""


@dataclass(frozen=True, slots=True)
class CapabilityItem:
    """One item of one point.

    Example: `CapabilityItem(40, 43, 1, 240, "arithmetic/0123456789ab", 1.0, "12", 38, 41, 41)`.
    """

    step: int
    """The committed step with which the point began; 0 before training."""
    closed_step: int
    """The step after which it was closed, whose row in `metrics.jsonl` has the change."""
    lineage: int
    """The lineage that asked."""
    of_items: int
    """Items of the point, answered or not: with fewer lines its writer died over it."""
    item: str
    """The item's task, and a hash of what was asked."""
    score: float | None
    """Between 0 and 1; None if it was not answered in time, or not taken by the engine."""
    answer: str | None
    """The answer; None without one."""
    tokens: int
    """Tokens that were read and written."""
    version_min: int
    """Version of the answer's oldest token, in steps; that of the point without an answer."""
    version_max: int
    """Version of its newest token, in steps."""


def scores_of_items(items: Iterable[CapabilityItem]) -> dict[str, float]:
    """Item → score; without those that have none."""
    return {each.item: each.score for each in items if each.score is not None}
