"""Whether the records of a group can be trained on: every number is one, and is in its range.

One value that is no number makes the loss of the whole step no number. So a group is refused before anything
is computed from it, and the sentence names the field and the candidate.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynalign.rollout.arrow_schema import SCHEMA
from dynalign.rollout.records import HIGHEST_SCORE

HIGHEST_LOGPROB = 0.01
"""A log-probability is at most 0; an engine's rounding can exceed that by less than this, in nats."""
_ROUNDING_POINTS = 1e-6
"""A score that is a mean over digits exceeds its range by less than this."""

_SCORES = ("score", "score_again")
_LOGPROBS = ("sampling_logprobs_T", "behaviour_logprobs_T")
# The learner writes the advantages itself; a step that is replayed has them already.
_NUMBERS = tuple(field.name for field in SCHEMA if field.type == pa.float64() and field.name != "advantage")


def fault(record: pa.RecordBatch, group_size: int | None, vocabulary_size: int | None) -> str | None:
    """Return what is wrong with the record batch of one group, as a clause; None if it can be trained on.

    group_size: how many candidates it must have; None allows any number.
    vocabulary_size: every token id is below it; None allows any id that is not negative.
    """
    if group_size is not None and record.num_rows != group_size:
        return f"it has {record.num_rows} candidates instead of {group_size}"
    return (
        _number_fault(record)
        or _logprob_fault(record)
        or _token_fault(record, vocabulary_size)
        or _span_fault(record)
    )


def _number_fault(record: pa.RecordBatch) -> str | None:
    for name in _NUMBERS:
        values = _flat(record.column(name))
        if not np.isfinite(values).all():
            return f"{name} holds a value that is not finite{_where(record, name, np.isfinite)}"
    for name in _SCORES:
        values = _flat(record.column(name))
        if not _is_score(values).all():
            return f"{name} holds a value outside 0 to {HIGHEST_SCORE}{_where(record, name, _is_score)}"
    values = _flat(record.column("digit_probs_6"))
    return None if np.isfinite(values).all() else "digit_probs_6 holds a value that is not finite"


def _is_score(values: NDArray[Any]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (values >= -_ROUNDING_POINTS) & (values <= HIGHEST_SCORE + _ROUNDING_POINTS)
    return inside


def _logprob_fault(record: pa.RecordBatch) -> str | None:
    for name in _LOGPROBS:
        if not _is_logprob(_flat(record.column(name))).all():
            where = _where(record, name, _is_logprob)
            return f"{name} holds a value that is no log-probability{where}"
    return None


def _is_logprob(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(values) & (values <= HIGHEST_LOGPROB)
    return finite


def _token_fault(record: pa.RecordBatch, vocabulary_size: int | None) -> str | None:
    for name in ("learning_context_ids", "token_ids_T"):
        ids = _flat(record.column(name))
        if not len(ids):
            continue
        if ids.min() < 0:
            return f"{name} holds the token {ids.min()}"
        if vocabulary_size is not None and ids.max() >= vocabulary_size:
            return f"token {ids.max()} is not in this model's vocabulary of {vocabulary_size}"
    return None


def _span_fault(record: pa.RecordBatch) -> str | None:
    """The spans of a candidate must follow one another from its first token to its last."""
    tokens = record.column("token_ids_T").value_lengths().to_pylist()
    for candidate, (spans, count) in enumerate(zip(record.column("spans").to_pylist(), tokens, strict=True)):
        if not _covers(spans, count):
            return f"spans do not give each of the {count} tokens of candidate {candidate} a policy version"
    return None


def _covers(spans: Sequence[dict[str, int | None] | None], count: int) -> bool:
    end = 0
    for span in spans:
        if span is None or span["start"] != end or span["end"] is None or span["end"] < end:
            return False
        if span["version"] is None or span["version"] < 0:
            return False
        end = span["end"]
    return end == count


def _flat(column: pa.Array) -> NDArray[Any]:
    """Return the values of a column, of all its lists; nulls are left out."""
    values = column.flatten() if pa.types.is_list(column.type) else column
    present: NDArray[Any] = values.drop_null().to_numpy(zero_copy_only=False)
    return present


def _where(record: pa.RecordBatch, name: str, fits: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> str:
    """Return the place of the first value of a column that does not fit, as the end of a clause."""
    column = record.column(name)
    for candidate in range(record.num_rows):
        values = _flat(column.slice(candidate, 1))
        wrong = values[~fits(values)]
        if len(wrong):
            return f" ({wrong[0]} at candidate {candidate})"
    return ""
