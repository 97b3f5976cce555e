"""Packed rows: candidates of one prompt lie behind one copy of it, so that a prompt of G candidates is computed once, not G times.

A row is a flat sequence of tokens `prompt, completion 1, completion 2, …, next prompt, …`. `layout` says where each part ends;
`attention.py` lets every completion see its own prompt and itself only, and positions restart behind the prompt. So the
log-probabilities and gradients are those of each sequence alone (tested), while the prompt's tokens are paid for once.
The last token of a completion predicts nothing and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.learner.batch import TrainingBatch, TrainingGroup
from dynalign.learner.loss import token_weights
from dynalign.learner.rows.packing import pack

Layout = tuple[tuple[int, ...], ...]
"""Per prompt of a row: its tokens, then the input tokens of each of its completions."""


@dataclass(frozen=True)
class Share:
    """Some candidates of one group, which share one copy of its prompt. `first`: flat number of the group's candidate 0."""

    group: TrainingGroup
    advantages_G: Sequence[float]
    weights_G: Sequence[float]
    first: int
    members: tuple[int, ...]

    @property
    def layout(self) -> tuple[int, ...]:
        return (
            len(self.group.context_ids),
            *(len(self.group.completion_ids_G[member]) - 1 for member in self.members),
        )


@dataclass(frozen=True)
class Row:
    """One micro-batch. S: input tokens, T: completion tokens, whose log-probabilities are wanted.

    predicting_T: the position in S whose hidden state predicts each completion token. weights_T: the token's weight in the loss.
    behaviour_logprobs_T: NaN where none was recorded; None where none was recorded in the whole row. chunks: how often every
    rank calls the head for its row of this number. candidates: flat numbers, in the order of their tokens in T.
    """

    layout: Layout
    input_ids_S: NDArray[np.int64]
    position_ids_S: NDArray[np.int64]
    predicting_T: NDArray[np.int64]
    targets_T: NDArray[np.int64]
    advantages_T: NDArray[np.float32]
    weights_T: NDArray[np.float32]
    behaviour_logprobs_T: NDArray[np.float32] | None
    candidates: tuple[int, ...]
    chunks: int


def _parts_per_group(groups: Sequence[TrainingGroup], ranks: int) -> int:
    """Into how many shares to cut each group: more shares balance the ranks better, and repeat the prompt more often.

    The cut with the shortest busiest rank, ⌈P·s / W⌉ · (prompt + completions / s) for mean lengths; 1 on one rank.
    """
    prompt = sum(len(group.context_ids) for group in groups) / len(groups)
    completions = sum(len(tokens) for group in groups for tokens in group.completion_ids_G) / len(groups)
    most = max(len(group.completion_ids_G) for group in groups)
    return min(
        range(1, most + 1),
        key=lambda parts: -(-len(groups) * parts // ranks) * (prompt + completions / parts),
    )


def _shares(whole: Share, parts: int, token_budget: int) -> list[Share]:
    """The group's non-empty completions in at least `parts` shares of about equal length, each within the budget."""
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
        if all(
            prompt_tokens + sum(lengths_G[member] - 1 for member in share) <= token_budget for share in dealt
        ):
            return [
                Share(whole.group, whole.advantages_G, whole.weights_G, whole.first, share) for share in dealt
            ]
    return []


def plan_rows(
    batch: TrainingBatch, chosen: range, settings: RunSettings, ranks: int, scale: float = 1.0
) -> list[list[list[Share]]]:
    """For every rank the same number of rows for one optimizer step on the groups `chosen`, each a list of shares.

    :param scale: multiplies every token's weight.
    :raises UserError: a sequence does not fit the token budget.
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
        first, size = int(firsts[index]), len(group.completion_ids_G)
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
    """The rows of `rank`. An empty row becomes one token that predicts nothing, to keep the collectives in step."""
    chunks = [max(_chunks(row, chunk_tokens) for row in turn) for turn in zip(*plan, strict=True)]
    return [_build(row, count) for row, count in zip(plan[rank], chunks, strict=True)]


def _build(shares: list[Share], chunks: int) -> Row:
    # Each list begins with what fixes its type, also where nothing follows.
    ids: list[NDArray[Any]] = [np.zeros(0 if shares else 1, np.int64)]
    positions: list[NDArray[Any]] = [np.zeros(0 if shares else 1, np.int64)]
    predicting, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    advantages, weights, behaviour = (
        [np.zeros(0, np.float32)],
        [np.zeros(0, np.float32)],
        [np.zeros(0, np.float32)],
    )
    candidates: list[int] = []
    end = 0
    for share in shares:
        prompt_tokens = len(share.group.context_ids)
        ids.append(share.group.context_ids)
        positions.append(np.arange(prompt_tokens))
        end += prompt_tokens
        last_of_prompt = end - 1
        for member in share.members:
            tokens, recorded = share.group.completion_ids_G[member], share.group.behaviour_logprobs_G[member]
            count, inputs = len(tokens), len(tokens) - 1
            ids.append(tokens[:-1])
            positions.append(np.arange(prompt_tokens, prompt_tokens + inputs))
            predicting += [np.array([last_of_prompt]), np.arange(end, end + inputs)]
            end += inputs
            targets.append(tokens.astype(np.int64))
            advantages.append(np.full(count, share.advantages_G[member], np.float32))
            weights.append(np.full(count, share.weights_G[member], np.float32))
            behaviour.append(np.full(count, np.nan, np.float32) if recorded is None else recorded)
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
        candidates=tuple(candidates),
        chunks=chunks,
    )
