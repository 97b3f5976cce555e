"""Scored groups, made on the spot; no torch."""

import random
from collections.abc import Sequence
from typing import Any

from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.records import Candidate, Group, Verdict, VersionSpan

VOCABULARY = 96


def candidate(
    tokens: Sequence[int],
    score: float | None,
    behaviour: Sequence[float] | None = None,
    version: int = 0,
    finish_reason: str = "stop",
    **more: Any,
) -> Candidate:
    """A candidate sampled by one version; unparsed without a score."""
    verdict = more.pop("verdict", Verdict(score, "unparsed" if score is None else "parsed", digit_mass=0.8))
    return Candidate(
        token_ids_T=tuple(tokens),
        sampling_logprobs_T=tuple(-1.0 for _ in tokens),
        text="",
        finish_reason="stop" if finish_reason == "stop" else "length",
        spans=(VersionSpan(version, 0, len(tokens)),),
        verdict=verdict,
        behaviour_logprobs_T=None if behaviour is None else tuple(behaviour),
        **more,
    )


def group(
    group_id: int, context: Sequence[int], candidates: Sequence[Candidate], noise_std: float | None = None
) -> Group:
    return Group(
        run="tiny",
        lineage=1,
        group_id=group_id,
        attempt=1,
        epoch=0,
        prompt_id=f"p{group_id}",
        prompt="",
        learning_context_ids=tuple(context),
        candidates_G=tuple(candidates),
        judge="self",
        judge_version=0,
        definition_hash="d",
        rubric_hash="r",
        worker="w",
        leased_s=1.0,
        generated_s=2.0,
        scored_s=3.0,
        noise_std=noise_std,
    )


def random_groups(count: int, group_size: int = 4, seed: int = 0, behaviour: bool = False) -> list[Group]:
    """Groups with prompts of 3 to 8 tokens, completions of 1 to 12, and scores that differ."""
    draw = random.Random(seed)

    def integers(low: int, high: int, size: int) -> list[int]:
        return [draw.randrange(low, high) for _ in range(size)]

    groups = []
    for group_id in range(count):
        candidates = []
        for index in range(group_size):
            tokens = integers(3, VOCABULARY, integers(1, 13, 1)[0])
            recorded = (
                [-0.1 * value for value in integers(20, 60, len(tokens))] if behaviour and index % 2 else None
            )
            score = min(5.0, (index * 7 + group_id) % 5 + 0.25 * index)
            candidates.append(candidate(tokens, score, recorded))
        groups.append(group(group_id, integers(3, VOCABULARY, integers(3, 9, 1)[0]), candidates))
    return groups


def payloads(groups: Sequence[Group]) -> tuple[list[bytes], list[str]]:
    """One payload per group, and its origin."""
    return [encode([to_batch(one)]) for one in groups], [f"group-{one.group_id}.arrow" for one in groups]
