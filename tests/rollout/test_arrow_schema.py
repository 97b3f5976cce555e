import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import RecordError
from dynalign.rollout.arrow_schema import SCHEMA, decode, encode, to_batch, to_group
from dynalign.rollout.records import Candidate, Group, Opinion, ScoringRules, Verdict, VersionSpan, spoken

floats = st.floats(-50, 0, width=32)
opinions = st.builds(
    Opinion,
    judge=st.text(),
    score=st.none() | st.floats(0, 5),
    round=st.integers(0, 9),
    position=st.none() | st.integers(0, 99),
    text=st.none() | st.text(),
    digit_probs=st.none() | st.lists(st.floats(0, 1), max_size=6).map(tuple),
    digit_mass=st.none() | st.floats(0, 1),
)
answered = st.lists(st.text(), min_size=1, max_size=3).map(
    lambda answers: Opinion(
        "self", 1.0, "parsed", rubric="power", text="\n".join(answers), answers=(*answers,)
    )
)
rules = ScoringRules("self", "expected", "mean", "mean", 0, 5, 0.1)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    length = draw(st.integers(0, 5))
    parsed = draw(st.booleans())
    lineage = draw(st.none() | st.integers(1, 9))
    answers = draw(st.lists(st.text(), max_size=3).map(tuple))
    said = draw(st.lists(opinions | answered, max_size=3).map(tuple))
    joined = spoken(answers, said)
    return Candidate(
        token_ids_T=tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=length, max_size=length))),
        sampling_logprobs_T=tuple(draw(st.lists(floats, min_size=length, max_size=length))),
        text=draw(st.text()),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        spans=(VersionSpan(draw(st.integers(0, 99)), 0, length, lineage),) if length else (),
        verdict=Verdict(
            draw(st.floats(0, 5)) if parsed else None,
            "parsed" if parsed else "unparsed",
            text=draw(st.none() | st.text()) if joined is None else joined,
            opinions=said,
            answers=answers,
        ),
        behaviour_logprobs_T=draw(st.none() | st.lists(floats, min_size=length, max_size=length).map(tuple)),
        gap_sum_nats=draw(st.none() | st.floats(-9, 9)),
    )


def group(candidates_G: tuple[Candidate, ...]) -> Group:
    return Group(
        run="run",
        lineage=1,
        group_id=7,
        attempt=0,
        epoch=2,
        prompt_id="id",
        prompt="a prompt",
        learning_context_ids=(5, 6),
        candidates_G=candidates_G,
        judge="self",
        judge_version=3,
        definition_hash="d" * 16,
        rubric_hash="r" * 16,
        worker="w",
        leased_s=1.0,
        generated_s=2.0,
        scored_s=3.0,
        scoring=rules,
        model_hash="m" * 32,
    )


@given(st.lists(candidates(), min_size=1, max_size=4).map(tuple))
def test_a_group_comes_back_from_arrow_as_it_went_in(candidates_G: tuple[Candidate, ...]) -> None:
    (batch,) = decode(encode([to_batch(group(candidates_G))]), "memory")
    assert batch.num_rows == len(candidates_G)
    assert to_group(batch) == group(candidates_G)


def one() -> Group:
    spans = (VersionSpan(3, 0, 2),)
    return group((Candidate((1, 2), (-0.5, -0.25), "hi", "stop", spans, Verdict(2.5, "parsed")),))


def test_advantages_are_null_until_the_learner_fills_them_in() -> None:
    assert to_batch(one()).column("advantage").to_pylist() == [None]
    assert to_batch(one(), [0.75]).column("advantage").to_pylist() == [0.75]


def test_the_age_of_a_group_is_that_of_its_oldest_token() -> None:
    spans = (VersionSpan(2, 0, 1), VersionSpan(5, 1, 2))
    aged = group((Candidate((1, 2), (0.0, 0.0), "", "stop", spans, Verdict(1.0, "parsed")),))
    assert (aged.version_min, aged.version_max) == (2, 5)


def test_records_of_another_schema_are_refused_by_name() -> None:
    other = pa.schema(SCHEMA, metadata={"format": "dynalign.experience/99"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, other) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(to_batch(one()).to_pylist(), schema=other))
    with pytest.raises(RecordError, match=r"spool/x\.arrow.*dynalign\.experience/99"):
        decode(sink.getvalue(), "spool/x.arrow")


@given(st.data())
def test_damaged_records_never_pass_as_others(data: st.DataObject) -> None:
    payload = bytearray(encode([to_batch(one())]))
    cut = data.draw(st.integers(1, len(payload) - 9))
    try:
        found = decode(bytes(payload[:cut]), "cut")
    except RecordError:
        return
    assert found == []  # cut between two messages: nothing, rather than something else


def test_bytes_that_are_no_arrow_stream_are_refused() -> None:
    with pytest.raises(RecordError, match="damaged"):
        decode(b"not arrow at all", "x")
