"""Decoding: read in place, checked where training would otherwise go wrong in silence."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dynalign.configs.errors import RecordError
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.rollout.arrow_schema import SCHEMA, encode, to_batch
from dynalign.rollout.records import Group
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


def test_a_batch_knows_its_lengths_and_its_highest_token() -> None:
    batch = TrainingBatch.of(decode_groups(*payloads([group(1, [3, 90], PAIR)])), "group")
    assert (batch.lengths_N, batch.highest_token_id) == ([3, 1], 90)
