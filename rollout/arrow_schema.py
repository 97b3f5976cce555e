"""The Arrow schema of the groups: one row per candidate, one record batch per group.

One IPC stream holds a group (spool) or the groups of a step (experience). `encode` and `decode` are
inverse to each other. Records of the format before are read as well. Others and damaged ones raise
RecordError; nothing is unpickled.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from dynalign.configs.errors import RecordError
from dynalign.rollout.records import Candidate, Group, Opinion, Verdict, VersionSpan

FORMAT = "dynalign.experience/2"
_FORMAT_BEFORE = "dynalign.experience/1"
"""It has no opinions."""

_SPAN = pa.struct([("version", pa.int32()), ("start", pa.int32()), ("end", pa.int32())])
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
    ]
)

_GROUP_FIELDS: list[pa.Field] = [
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
]
_CANDIDATE_FIELDS: list[pa.Field] = [
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
]
_ADVANTAGE = pa.field("advantage", pa.float64())
"""Null in the spool; the learner fills it in when it merges a step's groups into `experience/`."""

_FIELDS = [*_GROUP_FIELDS, *_CANDIDATE_FIELDS, *_VERDICT_FIELDS, _ADVANTAGE]
SCHEMA = pa.schema(_FIELDS, metadata={"format": FORMAT})
_SCHEMA_BEFORE = pa.schema(
    [field for field in _FIELDS if field.name != "opinions"], metadata={"format": _FORMAT_BEFORE}
)


def to_batch(group: Group, advantages_G: Sequence[float] | None = None) -> pa.RecordBatch:
    """One record batch of G rows. advantages_G: one per candidate, where they are known."""
    shared = {field.name: getattr(group, field.name) for field in _GROUP_FIELDS}
    plain = [field.name for field in _CANDIDATE_FIELDS if field.name not in ("candidate", "spans")]
    rows: list[dict[str, Any]] = []
    for index, candidate in enumerate(group.candidates_G):
        own: dict[str, Any] = {name: getattr(candidate, name) for name in plain}
        own["candidate"] = index
        own["spans"] = [asdict(span) for span in candidate.spans]
        own["advantage"] = None if advantages_G is None else advantages_G[index]
        verdict = asdict(candidate.verdict)
        verdict["verdict_text"] = verdict.pop("text")
        rows.append(shared | own | verdict)
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def encode(batches: Sequence[pa.RecordBatch]) -> bytes:
    """An IPC stream of the batches (one per group)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def check_schema(file: Path) -> None:
    """Raises RecordError when the records in `file` have another schema.

    Only the schema is read: a file that cannot be read at all passes, and `decode` refuses it later."""
    try:
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
            schema = reader.schema
    except (pa.ArrowException, OSError):
        return
    _refuse_other(schema, str(file))


def _refuse_other(schema: pa.Schema, origin: str) -> None:
    found = (schema.metadata or {}).get(b"format", b"none").decode(errors="replace")
    known = {FORMAT: SCHEMA, _FORMAT_BEFORE: _SCHEMA_BEFORE}.get(found)
    if known is None or not schema.equals(known):
        remedy = "use the version that wrote them"
        raise RecordError(f"{origin}: records of schema {found!r}, this version reads {FORMAT!r}; {remedy}")


def _present(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of the format before, with the columns of the present one, without a copy."""
    if "opinions" in batch.schema.names:
        return batch
    none = pa.array([[]] * batch.num_rows, SCHEMA.field("opinions").type)
    columns = [none if name == "opinions" else batch.column(name) for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def decode(payload: bytes | memoryview | pa.Buffer, origin: str) -> list[pa.RecordBatch]:
    """The record batches of a stream, without a copy of `payload`. origin: the source's name in errors.

    Raises RecordError when the stream is damaged, or its schema is neither this one nor the one before.
    """
    try:
        with pa.ipc.open_stream(payload) as reader:
            _refuse_other(reader.schema, origin)
            batches = list(reader)
            for batch in batches:
                batch.validate(full=True)
            return [_present(batch) for batch in batches]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{origin}: damaged Arrow records ({error})") from error


def to_group(batch: pa.RecordBatch) -> Group:
    """The group of one record batch."""
    rows = batch.to_pylist()
    shared = {field.name: rows[0][field.name] for field in _GROUP_FIELDS}
    shared["learning_context_ids"] = tuple(shared["learning_context_ids"])
    return Group(**shared, candidates_G=tuple(_candidate(row) for row in rows))


def _candidate(row: dict[str, Any]) -> Candidate:
    behaviour = row["behaviour_logprobs_T"]
    digits = row["digit_probs_6"]
    return Candidate(
        token_ids_T=tuple(row["token_ids_T"]),
        sampling_logprobs_T=tuple(row["sampling_logprobs_T"]),
        text=row["text"],
        finish_reason=row["finish_reason"],
        spans=tuple(VersionSpan(**span) for span in row["spans"]),
        verdict=Verdict(
            score=row["score"],
            status=row["status"],
            digit_probs_6=None if digits is None else tuple(digits),
            digit_mass=row["digit_mass"],
            text=row["verdict_text"],
            score_again=row["score_again"],
            opinions=tuple(Opinion(**opinion) for opinion in row["opinions"]),
        ),
        behaviour_logprobs_T=None if behaviour is None else tuple(behaviour),
        gap_sum_nats=row["gap_sum_nats"],
        gap_tokens=row["gap_tokens"],
    )
