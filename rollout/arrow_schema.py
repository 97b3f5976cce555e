"""The Arrow schema of the groups: one row per candidate, one record batch per group.

One IPC stream holds a group (spool) or the groups of a step (experience). `encode` and `decode` are
inverse to each other. Records of the formats before are read as well (`arrow_formats.py`). Others and damaged
ones raise RecordError; nothing is unpickled.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from dynalign.configs.errors import RecordError
from dynalign.rollout.arrow_formats import CANDIDATE_FIELDS, EARLIER, FORMAT, GROUP_FIELDS, present
from dynalign.rollout.arrow_formats import SCHEMA as SCHEMA
from dynalign.rollout.records import (
    Candidate,
    Group,
    Opinion,
    ScoringRules,
    Verdict,
    VersionSpan,
    spoken,
)


def to_batch(group: Group, advantages_G: Sequence[float] | None = None) -> pa.RecordBatch:
    """One record batch of G rows. advantages_G: one per candidate, where they are known."""
    shared = {field.name: getattr(group, field.name) for field in GROUP_FIELDS}
    shared["scoring"] = None if group.scoring is None else asdict(group.scoring)
    plain = [field.name for field in CANDIDATE_FIELDS if field.name not in ("candidate", "spans")]
    rows: list[dict[str, Any]] = []
    for index, candidate in enumerate(group.candidates_G):
        own: dict[str, Any] = {name: getattr(candidate, name) for name in plain}
        own["candidate"] = index
        own["spans"] = [asdict(span) for span in candidate.spans]
        own["advantage"] = None if advantages_G is None else advantages_G[index]
        rows.append(shared | own | _verdict_row(candidate.verdict))
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    """Answers that are kept apart are not kept as one text too."""
    row = asdict(verdict)
    for opinion, kept in zip(verdict.opinions, row["opinions"], strict=True):
        if opinion.answers and opinion.text == "\n".join(opinion.answers):
            kept["text"] = None
    text = row.pop("text")
    return row | {"verdict_text": None if text == spoken(verdict.answers, verdict.opinions) else text}


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
    known = {FORMAT: SCHEMA, **EARLIER}.get(found)
    if known is None or not schema.equals(known):
        remedy = "use the version that wrote them"
        raise RecordError(f"{origin}: records of schema {found!r}, this version reads {FORMAT!r}; {remedy}")


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
            return [present(batch) for batch in batches]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{origin}: damaged Arrow records ({error})") from error


def to_group(batch: pa.RecordBatch) -> Group:
    """The group of one record batch."""
    rows = batch.to_pylist()
    shared = {field.name: rows[0][field.name] for field in GROUP_FIELDS}
    shared["learning_context_ids"] = tuple(shared["learning_context_ids"])
    scoring = shared["scoring"]
    shared["scoring"] = None if scoring is None else ScoringRules(**scoring)
    return Group(**shared, candidates_G=tuple(_candidate(row) for row in rows))


def _candidate(row: dict[str, Any]) -> Candidate:
    behaviour = row["behaviour_logprobs_T"]
    digits = row["digit_probs_6"]
    answers = tuple(row["answers"])
    opinions = tuple(map(_opinion, row["opinions"]))
    text = row["verdict_text"]
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
            text=spoken(answers, opinions) if text is None else text,
            score_again=row["score_again"],
            opinions=opinions,
            answers=answers,
        ),
        behaviour_logprobs_T=None if behaviour is None else tuple(behaviour),
        gap_sum_nats=row["gap_sum_nats"],
        gap_tokens=row["gap_tokens"],
    )


def _opinion(row: dict[str, Any]) -> Opinion:
    answers = tuple(row["answers"])
    probs = row["digit_probs"]
    text = "\n".join(answers) if row["text"] is None and answers else row["text"]
    read = {"answers": answers, "digit_probs": None if probs is None else tuple(probs), "text": text}
    return Opinion(**row | read)
