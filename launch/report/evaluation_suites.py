"""What `dynalign evaluate suite` has left in an evaluation's folder, for the card of the preference."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.evaluation.statistics.estimates import Estimate


@dataclass(frozen=True, slots=True)
class SuiteScore:
    """One task of a suite: `SuiteScore("ifeval", "IFEval, strict", Estimate(0.41, …), Estimate(0.4, …),
    "non-inferior")`."""

    task: str
    """Its name in the harness."""
    title: str
    """Its name for a reader."""
    model: Estimate | None
    """Score of the model under test."""
    against: Estimate | None
    """Of the other one; None without one."""
    verdict: str
    """`non-inferior`, `inferior` or `inconclusive`; empty without another model."""


def suite_scores(folder: Path) -> tuple[SuiteScore, ...]:
    """The tasks of every suite whose results are in the folder; a file of another form is left out."""
    return tuple(score for file in sorted(folder.glob("suite-*.json")) for score in _of_file(file))


def _of_file(file: Path) -> Iterator[SuiteScore]:
    try:
        content = json.loads(file.read_text("utf-8"))
        tasks = [*content["tasks"]]
        yield from [_score(task) for task in tasks]
    except (OSError, ValueError, KeyError, TypeError):
        return


def _score(task: dict[str, Any]) -> SuiteScore:
    other = task["of_other"]
    loss = task["loss"]
    verdict = "" if other is None else "inconclusive" if loss is None else str(loss["verdict"])
    return SuiteScore(
        task["name"],
        task["title"],
        _estimate(task["of_model"]["score"]),
        None if other is None else _estimate(other["score"]),
        verdict,
    )


def _estimate(values: dict[str, Any] | None) -> Estimate | None:
    return None if values is None else Estimate(**values)
