"""The card of an evaluation: every figure, and every answer and verdict from which it was computed."""

import json
from dataclasses import asdict, dataclass

from dynalign.evaluation.pairwise.aspects import Aspects
from dynalign.evaluation.pairwise.external import ExternalResult
from dynalign.evaluation.pairwise.figures import PairFigures
from dynalign.evaluation.pairwise.internalization import Internalization
from dynalign.evaluation.pairwise.records import Comparison
from dynalign.evaluation.pairwise.transfer import SourceResult

FORMAT = 1
"""Of the JSON file."""


@dataclass(frozen=True)
class EvaluationFacts:
    """What was compared, and how.

    Example: `EvaluationFacts("quickstart", "9f…", "value", 100, ("builtin",), 512, 1.0, 0, "2026-12-01")`.
    """

    title: str
    """The run, or the model under test."""
    content: str
    """What makes the model under test the same as another one: hashes of its files, or its endpoint."""
    criterion: str
    """What the judges were asked for: `value` or `general`."""
    prompts: int
    """Prompts that both models answered."""
    sources: tuple[str, ...]
    """Where they come from."""
    max_tokens: int
    """Most tokens of an answer."""
    temperature: float
    """Of the models under test."""
    seed: int
    """Of answers, judges and bootstrap."""
    day: str
    """When, as YYYY-MM-DD."""


@dataclass(frozen=True)
class EvaluationCard:
    """All that an evaluation found. HTML, Markdown and JSON show the same figures.

    Example: `EvaluationCard(facts, comparison, figures, (SourceResult(…),), None, (), {})`.
    """

    facts: EvaluationFacts
    """What was compared."""
    comparison: Comparison
    """Every answer and verdict."""
    figures: PairFigures
    """The preference."""
    transfer: tuple[SourceResult, ...]
    """By source of the prompts."""
    internalization: Internalization | None
    """Two by two; None if it was not asked for."""
    aspects: tuple[Aspects, ...]
    """By judge; empty if they were not asked for."""
    external: dict[str, tuple[ExternalResult, ...]]
    """Judge → its correlation with an external measure; empty without one."""


def as_json(card: EvaluationCard) -> str:
    """The card as JSON. A figure that is not defined is null."""
    content = {"format": FORMAT, **asdict(card)}
    for judge, result in zip(content["figures"]["judges"], card.figures.judges, strict=True):
        judge["unusable"] = result.unusable
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
