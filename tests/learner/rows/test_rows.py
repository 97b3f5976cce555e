"""Packed rows: every completion token once, behind one copy of its prompt, on ranks that keep step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from tests.worlds.tiny_groups import candidate, group, payloads, random_groups

CHUNK = 8


def run_settings(token_budget: int = 64) -> RunSettings:
    learner = LearnerSettings(token_budget=token_budget, logprob_chunk_tokens=16)
    return RunSettings(
        name="rows", model="m", rollout=RolloutSettings(max_completion_tokens=16), learner=learner
    )


def batch_of(count: int, group_size: int = 4, seed: int = 0) -> TrainingBatch:
    return TrainingBatch.of(
        decode_groups(*payloads(random_groups(count, group_size, seed, behaviour=True))), "group"
    )


def rows_of(batch: TrainingBatch, ranks: int, token_budget: int = 64) -> list[list[Row]]:
    plan = plan_rows(batch, range(len(batch.groups_P)), run_settings(token_budget), ranks)
    return [build_rows(plan, rank, CHUNK) for rank in range(ranks)]


def test_a_row_lays_completions_behind_one_prompt() -> None:
    pair = [candidate([5, 6, 7], 1.0, [-0.5, -0.25, -1.0]), candidate([8], 3.0)]
    batch = TrainingBatch.of(decode_groups(*payloads([group(1, [3, 4], pair)])), "none")
    ((row,),) = rows_of(batch, 1)
    # prompt 3 4, then 5 6 (7 predicts nothing); 8 is predicted by the prompt's last token and has no input
    assert row.layout == ((2, 2, 0),)
    assert row.input_ids_S.tolist() == [3, 4, 5, 6]
    assert row.position_ids_S.tolist() == [0, 1, 2, 3]
    assert row.predicting_T.tolist() == [1, 2, 3, 1]
    assert row.targets_T.tolist() == [5, 6, 7, 8]
    assert row.advantages_T.tolist() == [-1.0, -1.0, -1.0, 1.0]
    assert row.weights_T.tolist() == [0.25] * 4
    assert row.behaviour_logprobs_T is not None
    assert row.behaviour_logprobs_T.tolist()[:3] == [-0.5, -0.25, -1.0]
    assert np.isnan(row.behaviour_logprobs_T[3])
    assert row.sampling_logprobs_T.tolist() == [-1.0] * 4
    assert row.candidates == (0, 1)


def test_each_token_of_a_row_keeps_its_own_log_probability_of_the_sampling_context() -> None:
    first = replace(candidate([5, 6], 1.0), sampling_logprobs_T=(-0.25, -0.5))
    second = replace(candidate([8, 9], 3.0), sampling_logprobs_T=(-2.0, -4.0))
    batch = TrainingBatch.of(decode_groups(*payloads([group(1, [3], [first, second])])), "none")
    for rows in (rows_of(batch, 1), rows_of(batch, 2)):
        tokens = {
            token: logprob
            for rank in rows
            for row in rank
            for token, logprob in zip(row.targets_T.tolist(), row.sampling_logprobs_T.tolist(), strict=True)
        }
        assert tokens == {5: -0.25, 6: -0.5, 8: -2.0, 9: -4.0}


@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 5), st.integers(20, 200), st.integers(0, 99))
def test_every_candidate_is_in_one_row_and_no_row_exceeds_the_budget(
    groups: int, size: int, ranks: int, budget: int, seed: int
) -> None:
    batch = batch_of(groups, size, seed)
    rows = [row for rank in rows_of(batch, ranks, budget) for row in rank]
    assert sorted(index for row in rows for index in row.candidates) == list(range(groups * size))
    assert all(len(row.input_ids_S) == sum(map(sum, row.layout)) <= budget for row in rows)
    assert sum(len(row.targets_T) for row in rows) == sum(batch.lengths_N)
    assert sum(row.weights_T.sum() for row in rows) == pytest.approx(1.0)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_ranks_have_equally_many_rows_and_call_the_head_equally_often(
    groups: int, ranks: int, seed: int
) -> None:
    turns = zip(*rows_of(batch_of(groups, seed=seed), ranks), strict=True)
    for turn in turns:
        assert len({row.chunks for row in turn}) == 1
        assert turn[0].chunks * CHUNK >= max(len(row.targets_T) for row in turn)


def test_an_empty_row_is_one_token_that_predicts_nothing() -> None:
    batch = TrainingBatch.of(
        decode_groups(*payloads([group(1, [3, 4], [candidate([5, 6], 1.0), candidate([], 0.0)])])), "group"
    )
    empty = rows_of(batch, 2)[1][0]
    assert (empty.layout, empty.input_ids_S.tolist(), len(empty.targets_T), empty.candidates) == (
        ((1,),),
        [0],
        0,
        (),
    )


def test_one_rank_computes_every_prompt_once() -> None:
    batch = batch_of(5, 8)
    prompts = [layout for row in rows_of(batch, 1, 2048)[0] for layout in row.layout]
    assert sorted(prompt[0] for prompt in prompts) == sorted(len(one.context_ids) for one in batch.groups_P)


def test_few_groups_are_cut_so_that_every_rank_has_work() -> None:
    tokens = [sum(len(row.targets_T) for row in rows) for rows in rows_of(batch_of(1, 8), 4)]
    assert min(tokens) > 0


def test_a_sequence_longer_than_a_row_is_the_users_mistake() -> None:
    batch = TrainingBatch.of(
        decode_groups(*payloads([group(1, [3] * 10, [candidate([5] * 8, 1.0), candidate([5], 2.0)])])),
        "group",
    )
    with pytest.raises(UserError, match="learner.token_budget = 16.*have 17 tokens.*set it to 17"):
        rows_of(batch, 1, 16)


def test_a_batch_without_completion_tokens_has_no_rows() -> None:
    batch = TrainingBatch.of(
        decode_groups(*payloads([group(1, [3], [candidate([], 0.0), candidate([], 0.0)])])), "group"
    )
    assert rows_of(batch, 2) == [[], []]
