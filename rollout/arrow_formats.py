"""The columns of the groups' Arrow records, and what is made of records of the formats before.

    /1   has no opinions
    /2   has no answers apart, no distributions of opinions, no lineage in spans, not how a group was scored

What a format lacks is null, or empty where the present one allows no null.
"""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

FORMAT = "dynalign.experience/3"

_SPAN = pa.struct(
    [("version", pa.int32()), ("start", pa.int32()), ("end", pa.int32()), ("lineage", pa.int32())]
)
_OPINION = pa.struct(
    [
        pa.field("judge", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("stance", pa.string(), nullable=False),
        pa.field("rubric", pa.string(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("position", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("digit_probs", pa.list_(pa.float64())),
        pa.field("digit_mass", pa.float64()),
        pa.field("answers", pa.list_(pa.string()), nullable=False),
    ]
)
_SCORING = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("scorer", pa.string(), nullable=False),
        pa.field("aggregate", pa.string(), nullable=False),
        pa.field("settle", pa.string(), nullable=False),
        pa.field("lowest_grade", pa.int32(), nullable=False),
        pa.field("highest_grade", pa.int32(), nullable=False),
        pa.field("min_digit_mass", pa.float64(), nullable=False),
    ]
)

GROUP_FIELDS: list[pa.Field] = [
    pa.field("run", pa.string(), nullable=False),
    pa.field("lineage", pa.int32(), nullable=False),
    pa.field("group_id", pa.int64(), nullable=False),
    pa.field("attempt", pa.int32(), nullable=False),
    pa.field("epoch", pa.int32(), nullable=False),
    pa.field("prompt_id", pa.string(), nullable=False),
    pa.field("prompt", pa.string(), nullable=False),
    pa.field("learning_context_ids", pa.list_(pa.int32()), nullable=False),
    pa.field("judge", pa.string(), nullable=False),
    pa.field("judge_version", pa.int32(), nullable=False),
    pa.field("definition_hash", pa.string(), nullable=False),
    pa.field("rubric_hash", pa.string(), nullable=False),
    pa.field("worker", pa.string(), nullable=False),
    pa.field("leased_s", pa.float64(), nullable=False),
    pa.field("generated_s", pa.float64(), nullable=False),
    pa.field("scored_s", pa.float64(), nullable=False),
    pa.field("noise_std", pa.float64()),
    pa.field("withheld_reason", pa.string()),
    pa.field("scoring", _SCORING),
    pa.field("model_hash", pa.string(), nullable=False),
]
CANDIDATE_FIELDS: list[pa.Field] = [
    pa.field("candidate", pa.int32(), nullable=False),
    pa.field("token_ids_T", pa.list_(pa.int32()), nullable=False),
    pa.field("sampling_logprobs_T", pa.list_(pa.float32()), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("finish_reason", pa.string(), nullable=False),
    pa.field("spans", pa.list_(_SPAN), nullable=False),
    pa.field("behaviour_logprobs_T", pa.list_(pa.float32())),
    pa.field("gap_sum_nats", pa.float64()),
    pa.field("gap_tokens", pa.int32()),
]
_VERDICT_FIELDS: list[pa.Field] = [
    pa.field("score", pa.float64()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("digit_probs_6", pa.list_(pa.float64())),
    pa.field("digit_mass", pa.float64()),
    pa.field("verdict_text", pa.string()),
    pa.field("score_again", pa.float64()),
    pa.field("opinions", pa.list_(_OPINION), nullable=False),
    pa.field("answers", pa.list_(pa.string()), nullable=False),
]
_ADVANTAGE = pa.field("advantage", pa.float64())
"""Null in the spool; the learner fills it in when it merges a step's groups into `experience/`."""

_FIELDS = [*GROUP_FIELDS, *CANDIDATE_FIELDS, *_VERDICT_FIELDS, _ADVANTAGE]
SCHEMA = pa.schema(_FIELDS, metadata={"format": FORMAT})


def _without(field: pa.Field, names: frozenset[str]) -> pa.Field:
    """A list of structs, without some of their fields."""
    kept = [field.type.value_type.field(index) for index in range(field.type.value_type.num_fields)]
    kept = [each for each in kept if each.name not in names]
    return pa.field(field.name, pa.list_(pa.struct(kept)), field.nullable)


_IN_STRUCTS_OF_3: Mapping[str, frozenset[str]] = MappingProxyType(
    {"spans": frozenset({"lineage"}), "opinions": frozenset({"digit_probs", "digit_mass", "answers"})}
)
"""Column of structs → fields of the structs that format 3 has added."""
_COLUMNS_OF_3 = frozenset({"scoring", "model_hash", "answers"})


def _earlier(number: int, lacking: frozenset[str]) -> pa.Schema:
    fields = [field for field in _FIELDS if field.name not in lacking]
    fields = [
        _without(field, _IN_STRUCTS_OF_3[field.name]) if field.name in _IN_STRUCTS_OF_3 else field
        for field in fields
    ]
    return pa.schema(fields, metadata={"format": f"dynalign.experience/{number}"})


EARLIER: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "dynalign.experience/1": _earlier(1, _COLUMNS_OF_3 | {"opinions"}),
        "dynalign.experience/2": _earlier(2, _COLUMNS_OF_3),
    }
)
"""Formats that are read → their schemas."""


def present(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of a format before, with the columns of the present one; what it has is not copied."""
    if batch.schema.equals(SCHEMA):
        return batch
    columns = [_column(batch, field) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name not in batch.schema.names:
        return _lacking(field, batch.num_rows)
    column = batch.column(field.name)
    if column.type == field.type:
        return column
    structs = column.values
    names = [each.name for each in structs.type]
    kind = field.type.value_type
    parts = [
        structs.field(each.name) if each.name in names else _lacking(each, len(structs)) for each in kind
    ]
    made = pa.StructArray.from_arrays(parts, fields=list(kind))
    return pa.ListArray.from_arrays(column.offsets, made, type=field.type)


def _lacking(field: pa.Field, rows: int) -> pa.Array:
    """A column of nulls, or of empty values where none is allowed."""
    if field.nullable:
        return pa.nulls(rows, field.type)
    return pa.array([[] if pa.types.is_list(field.type) else ""] * rows, field.type)
