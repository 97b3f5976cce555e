"""An external measure beside our judge: HumanAgencyBench (arXiv 2509.08494), scored by others.

Its rows are one model's answer to one test, with a score from 0 to 10. Our judge scores the same answers by
the value's rubric; the rank correlation says, for each of the six dimensions, whether it sees the same.
The files are read by path: they come with no licence that would let us ship them.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.evaluation.statistics.correlation import spearman
from dynalign.evaluation.statistics.estimates import Estimate

DIMENSIONS = (
    "ask_clarifying_questions",
    "avoid_value_manipulation",
    "correct_misinformation",
    "defer_important_decisions",
    "encourage_learning",
    "maintain_social_boundaries",
)
"""The six dimensions, by the names of the benchmark."""
_FIELDS = {
    "prompt": ("prompt",),
    "answer": ("subject_response", "response", "answer"),
    "score": ("human_score", "score"),
    "dimension": ("dimension", "problem_type"),
}
"""What is read → the columns it may stand in, the first that is there."""
_LONGEST_FIELD = 1 << 24


@dataclass(frozen=True, slots=True)
class ExternalItem:
    """One answer with somebody else's score.

    Example: `ExternalItem("encourage_learning", "Explain my homework …", "The answer is 4.", 3.0)`.
    """

    dimension: str
    """Which of the benchmark's dimensions."""
    prompt: str
    """The test's text; the cluster of the interval."""
    answer: str
    """What the scored model answered."""
    score: float
    """The external score."""


@dataclass(frozen=True, slots=True)
class ExternalResult:
    """Of one dimension: `ExternalResult("encourage_learning", Estimate(0.41, 0.3, 0.52, 150), 150, 0)`."""

    dimension: str
    """Its name; `all` for all together."""
    correlation: Estimate | None
    """Spearman's, between our judge's score and the external one; the interval is over prompts."""
    items: int
    """Answers with both scores."""
    unread: int
    """Answers that our judge gave no score."""


def external_results(
    items: Sequence[ExternalItem], scores: Sequence[float | None], seed: int = 0
) -> tuple[ExternalResult, ...]:
    """The correlation in each dimension that has items, then of all. scores: our judge's, of each item."""
    rows = list(zip(items, scores, strict=True))
    there = list(dict.fromkeys(item.dimension for item in items))
    names = [name for name in DIMENSIONS if name in there]
    names += [name for name in there if name not in DIMENSIONS]
    found = [_result(name, [row for row in rows if row[0].dimension == name], seed) for name in names]
    return (*found, _result("all", rows, seed))


def read_items(path: Path) -> tuple[ExternalItem, ...]:
    """The items of a file (.csv, .jsonl) or of every such file in a folder, in the benchmark's columns.

    Without a column for the dimension, the name of the file or of its folder is the dimension, as the
    benchmark's own pipeline writes `encourage_learning/raw.csv`. Raises UserError."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (".csv", ".jsonl"))
    if not files:
        rule = "is no file, and no folder with .csv or .jsonl files"
        remedy = "give the benchmark's rows: prompt, subject_response, score, dimension"
        raise UserError([Mistake("--external", str(path), rule, remedy)])
    mistakes: list[Mistake] = []
    items = [item for file in files for item in _of_file(file, mistakes)]
    if mistakes:
        raise UserError(mistakes)
    return tuple(items)


def _of_file(file: Path, mistakes: list[Mistake]) -> Iterator[ExternalItem]:
    try:
        rows = list(_rows(file))
    except (OSError, ValueError, csv.Error) as error:
        rule = f"cannot be read ({' '.join(str(error).split())})"
        mistakes.append(Mistake(str(file), None, rule, "give UTF-8 CSV or JSON Lines"))
        return
    named = next((part for part in (file.stem, file.parent.name) if part in DIMENSIONS), None)
    for number, row in enumerate(rows, start=1):
        found = {name: _first(row, columns) for name, columns in _FIELDS.items()}
        dimension = found["dimension"] or named
        lacking = [name for name in ("prompt", "answer", "score") if found[name] in (None, "")]
        lacking += [] if dimension else ["dimension"]
        if lacking:
            columns = ", ".join("/".join(_FIELDS[name]) for name in lacking)
            mistakes.append(Mistake(f"{file}:{number}", None, f"has no {columns}", "add the column"))
            return
        try:
            score = float(str(found["score"]))
        except ValueError:
            rule = "its score is no number"
            mistakes.append(Mistake(f"{file}:{number}", found["score"], rule, "give a number"))
            return
        yield ExternalItem(str(dimension), str(found["prompt"]), str(found["answer"]), score)


def _rows(file: Path) -> Iterator[dict[str, object]]:
    csv.field_size_limit(_LONGEST_FIELD)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        if file.suffix == ".csv":
            yield from csv.DictReader(stream)
            return
        for line in stream:
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError("a line is no JSON object")
            if row:
                yield row


def _first(row: dict[str, object], columns: Sequence[str]) -> object:
    return next((row[column] for column in columns if row.get(column) not in (None, "")), None)


def _result(name: str, rows: Sequence[tuple[ExternalItem, float | None]], seed: int) -> ExternalResult:
    kept = [(item.score, score, item.prompt) for item, score in rows if score is not None]
    correlation = spearman([row[1] for row in kept], [row[0] for row in kept], [row[2] for row in kept], seed)
    return ExternalResult(name, correlation, len(kept), len(rows) - len(kept))
