"""Scored groups with random tokens, for learners that need no engine."""

import random
from collections.abc import Sequence
from pathlib import Path

from dynalign.launch.models.shape import read_shape
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.records import Candidate, Group, Verdict, VersionSpan


def made_groups(model: Path, groups: int, prompt_tokens: int, completions_G: Sequence[int]) -> bytes:
    """An Arrow stream of groups for this model. completions_G: the tokens of each candidate of a group."""
    draw = random.Random(1)
    vocabulary = read_shape(model).vocabulary

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(count))

    made = [
        _group(number, tokens(prompt_tokens), [tokens(count) for count in completions_G])
        for number in range(1, groups + 1)
    ]
    return encode([to_batch(group) for group in made])


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
