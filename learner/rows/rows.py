"""Packed rows: the candidates of a prompt follow one copy of it, so the prompt is computed once, not once per
candidate.

A row is a flat sequence of tokens `prompt, completion 1, completion 2, …, next prompt, …`. `layout` says
where each part ends. In `attention.py` a completion attends to its own prompt and itself only, and positions
restart after the prompt. So log-probabilities and gradients equal those of each sequence alone (tested). The
last token of a completion predicts nothing and is left out.

Axes: G candidates of a group, N candidates of the step, S input tokens of a row, T completion tokens of a
row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.learner.batch import TrainingBatch, TrainingGroup
from dynalign.learner.loss import token_weights
from dynalign.learner.rows.packing import pack

Layout = tuple[tuple[int, ...], ...]
"""For each prompt of a row: the number of its tokens, then the number of input tokens of each of its
completions."""


@dataclass(frozen=True)
class Share:
    """Some candidates of one group, which share one copy of its prompt."""

    group: TrainingGroup
    """The group, with all its candidates."""
    advantages_G: Sequence[float]
    """The advantage of each candidate of the group."""
    weights_G: Sequence[float]
    """The weight in the loss of each token of a candidate, one per candidate of the group."""
    first: int
    """The number of the group's candidate 0 in the batch."""
    members: tuple[int, ...]
    """Which candidates of the group are in this share, from 0 to G - 1."""

    @property
    def layout(self) -> tuple[int, ...]:
        """The tokens of the prompt, then the input tokens of each member."""
        inputs = (len(self.group.completion_ids_G[member]) - 1 for member in self.members)
        return len(self.group.context_ids), *inputs


@dataclass(frozen=True)
class Row:
    """One micro-batch: S input tokens, and T completion tokens, whose log-probabilities are computed.

    Example, prompt (5, 6) with completions (7, 2) and (8,): ``layout=((2, 1, 0),)``, ``input_ids_S=[5, 6,
    7]``, ``position_ids_S=[0, 1, 2]``, ``predicting_T=[1, 2, 1]``, ``targets_T=[7, 2, 8]``, ``candidates=(0,
    1)``.
    """

    layout: Layout
    """Where each prompt and completion ends."""
    input_ids_S: NDArray[np.int64]
    """The token ids."""
    position_ids_S: NDArray[np.int64]
    """The position of each token in its own sequence, from 0."""
    predicting_T: NDArray[np.int64]
    """For each completion token, the index in S whose hidden state predicts it."""
    targets_T: NDArray[np.int64]
    """The ids of the completion tokens."""
    advantages_T: NDArray[np.float32]
    """The advantage of each token's candidate."""
    weights_T: NDArray[np.float32]
    """The weight of each token in the loss; the weights of the whole step add up to 1 (see
    `loss.token_weights`)."""
    behaviour_logprobs_T: NDArray[np.float32] | None
    """log π of the policy that sampled, nats; NaN for a token without a record. None if no token of the row
    has one."""
    sampling_logprobs_T: NDArray[np.float32]
    """log π(y|s,x) by the engine when the tokens were sampled, nats."""
    candidates: tuple[int, ...]
    """The numbers of the candidates in the batch, in the order of their tokens in T."""
    chunks: int
    """How often every rank calls the head for its row of this index."""


def _parts_per_group(groups: Sequence[TrainingGroup], ranks: int) -> int:
    """Return into how many shares to split each group: more shares balance the ranks better, but repeat the
    prompt more often.

    Minimizes the tokens of the rank with the most work, ⌈P·s / W⌉ · (prompt + completions / s), with P
    groups, s shares of a group, W ranks, and mean lengths. It is 1 on one rank.
    """
    prompt = sum(len(group.context_ids) for group in groups) / len(groups)
    completions = sum(len(tokens) for group in groups for tokens in group.completion_ids_G) / len(groups)
    most = max(len(group.completion_ids_G) for group in groups)
    return min(
        range(1, most + 1),
        key=lambda parts: -(-len(groups) * parts // ranks) * (prompt + completions / parts),
    )


def _shares(whole: Share, parts: int, token_budget: int) -> list[Share]:
    """Split the non-empty completions of `whole` into at least `parts` shares of about equal length, each
    within the budget.
    """
    lengths_G = [len(tokens) for tokens in whole.group.completion_ids_G]
    members = sorted(
        (member for member in whole.members if lengths_G[member]), key=lambda member: -lengths_G[member]
    )
    prompt_tokens = len(whole.group.context_ids)
    if members and prompt_tokens + lengths_G[members[0]] - 1 > token_budget:
        longest = prompt_tokens + lengths_G[members[0]] - 1
        rule = f"a prompt and its completion have {longest} tokens and must fit in one row"
        raise UserError([Mistake("learner.token_budget", token_budget, rule, f"set it to {longest} or more")])
    for count in range(min(parts, len(members)), len(members) + 1):
        dealt = [tuple(sorted(members[start::count])) for start in range(count)]
        inputs = [prompt_tokens + sum(lengths_G[member] - 1 for member in share) for share in dealt]
        if max(inputs, default=0) <= token_budget:
            return [replace(whole, members=share) for share in dealt]
    return []


def plan_rows(
    batch: TrainingBatch, chosen: range, settings: RunSettings, ranks: int, scale: float = 1.0
) -> list[list[list[Share]]]:
    """Return the rows of one optimizer step, [rank][row][share]; every rank has the same number of rows.

    chosen: the indices of the groups to train on.
    scale: multiplies every token's weight.

    Raises UserError if a sequence exceeds the token budget.
    """
    groups = [batch.groups_P[group] for group in chosen]
    firsts = np.cumsum([0] + [len(group.completion_ids_G) for group in batch.groups_P])
    lengths_N = [len(tokens) for group in groups for tokens in group.completion_ids_G]
    if not sum(lengths_N):
        return [[] for _ in range(ranks)]
    weights_N = token_weights(
        lengths_N, settings.algorithm.loss_aggregation, settings.rollout.max_completion_tokens
    )
    parts = _parts_per_group(groups, ranks)
    shares: list[Share] = []
    for index, group in zip(chosen, groups, strict=True):
        first = int(firsts[index])
        size = len(group.completion_ids_G)
        start = first - int(firsts[chosen.start])
        weights_G = [scale * weight for weight in weights_N[start : start + size]]
        whole = Share(group, batch.advantages_PG[index], weights_G, first, tuple(range(size)))
        shares += _shares(whole, parts, settings.learner.token_budget)
    plan = pack([sum(share.layout) for share in shares], settings.learner.token_budget, ranks)
    return [[[shares[index] for index in row] for row in rows] for rows in plan]


def _chunks(row: list[Share], chunk_tokens: int) -> int:
    tokens = sum(len(share.group.completion_ids_G[member]) for share in row for member in share.members)
    return max(1, -(-tokens // chunk_tokens))


def build_rows(plan: list[list[list[Share]]], rank: int, chunk_tokens: int) -> list[Row]:
    """Return the rows of `rank`.

    An empty row gets one token that predicts nothing, so the rank enters the collectives.

    plan: [rank][row][share], from `plan_rows`. chunk_tokens: completion tokens per call of the head.
    """
    chunks = [max(_chunks(row, chunk_tokens) for row in turn) for turn in zip(*plan, strict=True)]
    return [_build(row, count) for row, count in zip(plan[rank], chunks, strict=True)]


def _build(shares: list[Share], chunks: int) -> Row:
    # Each list begins with an array that fixes the type of the result, also if nothing follows.
    ids: list[NDArray[Any]] = [np.zeros(0 if shares else 1, np.int64)]
    positions: list[NDArray[Any]] = [np.zeros(0 if shares else 1, np.int64)]
    predicting = [np.zeros(0, np.int64)]
    targets = [np.zeros(0, np.int64)]
    advantages = [np.zeros(0, np.float32)]
    weights = [np.zeros(0, np.float32)]
    behaviour = [np.zeros(0, np.float32)]
    sampling = [np.zeros(0, np.float32)]
    candidates: list[int] = []
    end = 0
    for share in shares:
        prompt_tokens = len(share.group.context_ids)
        ids.append(share.group.context_ids)
        positions.append(np.arange(prompt_tokens))
        end += prompt_tokens
        last_of_prompt = end - 1
        for member in share.members:
            tokens = share.group.completion_ids_G[member]
            recorded = share.group.behaviour_logprobs_G[member]
            count = len(tokens)
            inputs = count - 1
            ids.append(tokens[:-1])
            positions.append(np.arange(prompt_tokens, prompt_tokens + inputs))
            predicting += [np.array([last_of_prompt]), np.arange(end, end + inputs)]
            end += inputs
            targets.append(tokens.astype(np.int64))
            advantages.append(np.full(count, share.advantages_G[member], np.float32))
            weights.append(np.full(count, share.weights_G[member], np.float32))
            behaviour.append(np.full(count, np.nan, np.float32) if recorded is None else recorded)
            sampling.append(share.group.sampling_logprobs_G[member])
            candidates.append(share.first + member)
    behaviour_T = np.concatenate(behaviour)
    return Row(
        layout=tuple(share.layout for share in shares) or ((1,),),
        input_ids_S=np.concatenate(ids),
        position_ids_S=np.concatenate(positions),
        predicting_T=np.concatenate(predicting),
        targets_T=np.concatenate(targets),
        advantages_T=np.concatenate(advantages),
        weights_T=np.concatenate(weights),
        behaviour_logprobs_T=None if np.isnan(behaviour_T).all() else behaviour_T,
        sampling_logprobs_T=np.concatenate(sampling),
        candidates=tuple(candidates),
        chunks=chunks,
    )
