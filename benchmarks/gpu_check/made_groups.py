"""Scored groups with random tokens, for ranks that need no engine."""

import random
from pathlib import Path

from dynalign.launch.models.shape import read_shape
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.records import Candidate, Group, Verdict, VersionSpan

GROUPS = 4
CANDIDATES = 4
_PROMPT_TOKENS = 64


def made_groups(model: Path, most_tokens: int) -> bytes:
    """An Arrow stream of groups for this model. most_tokens: the longest completion; others are shorter."""
    draw = random.Random(1)
    vocabulary = read_shape(model).vocabulary

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(count))

    groups = [
        _group(number, tokens(_PROMPT_TOKENS), [tokens(most_tokens - index) for index in range(CANDIDATES)])
        for number in range(1, GROUPS + 1)
    ]
    return encode([to_batch(group) for group in groups])


def _group(number: int, context: tuple[int, ...], completions: list[tuple[int, ...]]) -> Group:
    candidates = [
        Candidate(
            token_ids_T=completion,
            sampling_logprobs_T=(-1.0,) * len(completion),
            text="",
            finish_reason="length",
            spans=(VersionSpan(0, 0, len(completion)),),
            verdict=Verdict(float((index + number) % 6), "parsed", digit_mass=1.0),
        )
        for index, completion in enumerate(completions)
    ]
    return Group(
        run="gpu-check",
        lineage=1,
        group_id=number,
        attempt=1,
        epoch=0,
        prompt_id=f"made-{number}",
        prompt="",
        learning_context_ids=context,
        candidates_G=tuple(candidates),
        judge="made",
        judge_version=0,
        definition_hash="",
        rubric_hash="",
        worker="made",
        leased_s=0.0,
        generated_s=0.0,
        scored_s=0.0,
        noise_std=None,
    )
