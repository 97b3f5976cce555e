"""Decoding: read in place, checked where training would otherwise go wrong in silence."""

import contextlib
import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dynalign.configs.errors import RecordError, UntrainableGroups
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.rollout.arrow_schema import SCHEMA, encode, to_batch
from dynalign.rollout.records import Group, VersionSpan
from tests.worlds.tiny_groups import candidate, group, payloads, random_groups

PAIR = [candidate([5, 6, 7], 1.0, [-0.5, -0.25, -1.0]), candidate([8], 3.0)]


def with_column(one: Group, column: str, values: list[object]) -> bytes:
    index = SCHEMA.get_field_index(column)
    return encode(
        [to_batch(one).set_column(index, SCHEMA.field(index), pa.array(values, SCHEMA.field(index).type))]
    )


def test_token_ids_and_log_probabilities_are_views_of_the_payload() -> None:
    [payload], origins = payloads([group(1, [3, 4], PAIR)])
    (decoded,) = decode_groups([payload], origins)
    bytes_ = np.frombuffer(payload, np.uint8)
    recorded = decoded.behaviour_logprobs_G[0]
    assert recorded is not None
    assert all(
        np.shares_memory(view, bytes_) for view in (decoded.context_ids, *decoded.completion_ids_G, recorded)
    )


def test_decoding_gives_back_what_was_encoded() -> None:
    groups = random_groups(3, behaviour=True)
    decoded = decode_groups(*payloads(groups))
    assert [one.group_id for one in decoded] == [one.group_id for one in groups]
    for one, origin in zip(decoded, groups, strict=True):
        assert tuple(one.context_ids) == origin.learning_context_ids
        assert [tuple(tokens) for tokens in one.completion_ids_G] == [
            candidate.token_ids_T for candidate in origin.candidates_G
        ]
        assert one.scores_G == list(origin.scores_G)
        for recorded, candidate_ in zip(one.behaviour_logprobs_G, origin.candidates_G, strict=True):
            expected = candidate_.behaviour_logprobs_T
            assert (recorded is None) == (expected is None)
            assert recorded is None or recorded == pytest.approx(expected)


def test_one_payload_may_hold_several_groups() -> None:
    batches = [to_batch(group(number, [3, 4], PAIR)) for number in (1, 2)]
    assert [one.group_id for one in decode_groups([encode(batches)], ["both.arrow"])] == [1, 2]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"no Arrow at all", "bad.arrow: damaged"),
        (with_column(group(1, [3], PAIR), "group_id", [1, 2]), "bad.arrow: a record batch holds 2 groups"),
        (
            with_column(group(1, [3], PAIR), "learning_context_ids", [[3], [4]]),
            "do not share one non-empty prompt",
        ),
        (encode([to_batch(group(1, [], PAIR))]), "do not share one non-empty prompt"),
        (
            with_column(group(1, [3], PAIR), "sampling_logprobs_T", [[-1.0, -1.0, -1.0], []]),
            "candidate 1 of group 1 has 1 tokens and 0",
        ),
        (
            with_column(group(1, [3], PAIR), "behaviour_logprobs_T", [[-1.0], None]),
            "candidate 0 of group 1 has 3 tokens and 1",
        ),
        (
            with_column(group(1, [3], PAIR), "token_ids_T", [[5, None, 7], [8]]),
            "bad.arrow: a list .* holds nulls",
        ),
    ],
)
def test_a_payload_that_cannot_be_trained_on_is_refused_by_name(payload: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        decode_groups([payload], ["bad.arrow"])


def test_a_group_that_stands_twice_is_refused() -> None:
    one = group(4, [3], PAIR)
    with pytest.raises(RecordError, match="group 4 stands twice"):
        decode_groups(*payloads([one, one]))


def test_advantages_are_group_relative_and_zero_for_the_unparsed() -> None:
    scores = [1.0, None, 3.0]
    batch = TrainingBatch.of(
        decode_groups(*payloads([group(1, [3], [candidate([5], score) for score in scores])])), "none"
    )
    assert batch.advantages_PG == ((-1.0, 0.0, 1.0),)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    broken = replace(PAIR[0], verdict=replace(PAIR[0].verdict, score=float("nan")))
    with pytest.raises(RecordError, match="finite"):
        TrainingBatch.of(decode_groups(*payloads([group(1, [3], [broken, PAIR[1]])])), "group")


def test_a_batch_knows_its_lengths() -> None:
    assert TrainingBatch.of(decode_groups(*payloads([group(1, [3, 90], PAIR)])), "group").lengths_N == [3, 1]


NAN = float("nan")
INFINITE = float("inf")


def with_candidate(**changed: Any) -> Group:
    """A group of two whose second candidate has other fields."""
    return group(7, [3], [PAIR[0], replace(PAIR[1], **changed)])


def with_verdict(**changed: Any) -> Group:
    return with_candidate(verdict=replace(PAIR[1].verdict, **changed))


@pytest.mark.parametrize(
    ("one", "cause"),
    [
        (with_candidate(behaviour_logprobs_T=(NAN,)), r"behaviour_logprobs_T .* \(nan at candidate 1\)"),
        (with_candidate(behaviour_logprobs_T=(INFINITE,)), r"behaviour_logprobs_T .* \(inf at candidate 1\)"),
        (with_candidate(behaviour_logprobs_T=(-INFINITE,)), "behaviour_logprobs_T .* no log-probability"),
        (with_candidate(behaviour_logprobs_T=(0.5,)), "behaviour_logprobs_T .* no log-probability"),
        (with_candidate(sampling_logprobs_T=(NAN,)), "sampling_logprobs_T .* no log-probability"),
        (with_candidate(gap_sum_nats=INFINITE, gap_tokens=1), "gap_sum_nats .* not finite"),
        (with_candidate(token_ids_T=(-1,)), "token_ids_T holds the token -1"),
        (with_candidate(token_ids_T=(96,)), "token 96 is not in this model's vocabulary of 96"),
        (with_candidate(spans=()), "spans .* 1 tokens of candidate 1"),
        (with_candidate(spans=(VersionSpan(0, 1, 1),)), "spans .* candidate 1"),
        (with_candidate(spans=(VersionSpan(0, 0, 2),)), "spans .* candidate 1"),
        (with_candidate(spans=(VersionSpan(-1, 0, 1),)), "spans .* candidate 1"),
        (with_candidate(spans=(VersionSpan(0, 0, 1), VersionSpan(1, 1, 0))), "spans .* candidate 1"),
        (with_verdict(score=NAN), r"score .* not finite \(nan at candidate 1\)"),
        (with_verdict(score=1e9), r"score .* outside 0 to 5 \(1000000000.0 at candidate 1\)"),
        (with_verdict(score=-1.0), "score .* outside 0 to 5"),
        (with_verdict(score_again=6.0), "score_again .* outside 0 to 5"),
        (with_verdict(digit_mass=NAN), "digit_mass .* not finite"),
        (with_verdict(digit_probs_6=(NAN,) * 6), "digit_probs_6 .* not finite"),
        (group(7, [3], PAIR, noise_std=INFINITE), "noise_std .* not finite"),
        (group(7, [3], PAIR[:1]), "it has 1 candidates instead of 2"),
        (group(7, [96], PAIR), "token 96 is not in this model's vocabulary"),
    ],
)
def test_a_value_that_cannot_be_trained_on_is_named_by_group_field_and_candidate(
    one: Group, cause: str
) -> None:
    good = group(8, [3], PAIR)
    with pytest.raises(UntrainableGroups, match=rf"group 7 cannot be trained on: .*{cause}") as raised:
        decode_groups(*payloads([good, one]), group_size=2, vocabulary_size=96)
    assert raised.value.group_ids == (7,)


def test_a_candidate_without_a_token_needs_no_version() -> None:
    silent = replace(candidate([], 0.0), spans=())
    assert decode_groups(*payloads([group(1, [3], [PAIR[0], silent])]))[0].group_id == 1


def test_every_group_that_cannot_be_trained_on_is_named_at_once() -> None:
    with pytest.raises(UntrainableGroups, match=r"group 7 .* \(and 1 more groups\)") as raised:
        decode_groups(*payloads([replace(with_verdict(score=NAN), group_id=9), with_verdict(score=6.0)]))
    assert raised.value.group_ids == (7, 9)
    assert pickle.loads(pickle.dumps(raised.value)).causes == raised.value.causes


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b"no Arrow at all", "damaged Arrow records"),
        (encode([to_batch(with_verdict(score=1.0))]), "the records are those of group 7"),
        (encode([]), "0 record batches instead of one"),
    ],
)
def test_a_damaged_payload_is_known_by_the_name_of_its_file(payload: bytes, cause: str) -> None:
    with pytest.raises(UntrainableGroups, match=cause) as raised:
        decode_groups([payload], ["group-5-1-2.arrow"])
    assert raised.value.group_ids == (5,)


def test_a_damaged_byte_raises_nothing_but_record_errors() -> None:
    draw = random.Random(3)
    good = encode([to_batch(group(7, [3], PAIR))])
    for _ in range(300):
        damaged = bytearray(good)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        with contextlib.suppress(RecordError):
            decode_groups([bytes(damaged)], ["group-7-1-1.arrow"], group_size=2, vocabulary_size=96)
        with contextlib.suppress(RecordError):
            decode_groups([good[: draw.randrange(len(good))]], ["group-7-1-1.arrow"])
