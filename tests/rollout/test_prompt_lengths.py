"""Prompts that are too long, found one by one or in batches with the same result."""

from collections.abc import Sequence

import pytest

from dynalign.rollout.prompt_lengths import FEW, SHOWN, Lengths, too_long
from dynalign.rollout.prompts import Prompt

SYSTEM_TOKENS = 30


class Words:
    """Counts words, of which one fewer is in a context, and remembers what was counted one by one."""

    def __init__(self) -> None:
        self.contexts = 0

    def of_context(self, text: str) -> int:
        self.contexts += 1
        return SYSTEM_TOKENS + len(text.split()) - 1

    def of_texts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def prompts_of(words: Sequence[int]) -> list[Prompt]:
    return [Prompt(str(number), "word " * count, "", "train") for number, count in enumerate(words)]


def test_prompts_over_the_limit_are_named_with_their_tokens() -> None:
    counted = Words()
    lengths = Lengths(SYSTEM_TOKENS + 3, counted.of_context, counted.of_texts)
    long, more = too_long(prompts_of([2, 5, 4]), lengths)
    assert [(mistake.place, mistake.value) for mistake in long] == [("prompt 1", SYSTEM_TOKENS + 4)]
    assert more == 0


@pytest.mark.parametrize("others", [0, FEW])
def test_the_first_long_ones_are_named_and_the_others_counted(others: int) -> None:
    counted = Words()
    lengths = Lengths(SYSTEM_TOKENS + 9, counted.of_context, counted.of_texts)
    long, more = too_long(prompts_of([9] * others + [11] * 30 + [400] * 30), lengths)
    assert [mistake.place for mistake in long] == [f"prompt {others + number}" for number in range(SHOWN)]
    assert more == 60 - SHOWN


def test_of_many_prompts_only_those_near_the_limit_are_encoded_with_their_context() -> None:
    counted = Words()
    said: list[int] = []
    lengths = Lengths(SYSTEM_TOKENS + 100, counted.of_context, counted.of_texts)
    many = prompts_of([5] * 25_000 + [99, 100, 101, 102])
    long, more = too_long(many, lengths, said.append)
    assert [mistake.place for mistake in long] == ["prompt 25003"]
    assert (more, said) == (0, [10_000, 20_000, 25_004])
    assert counted.contexts < 10


def test_a_template_that_changes_the_text_has_every_context_encoded() -> None:
    counted = Words()
    lengths = Lengths(150, lambda text: 2 * counted.of_context(text), counted.of_texts)
    long, _ = too_long(prompts_of([20] * FEW + [60]), lengths)
    assert [(mistake.place, mistake.value) for mistake in long] == [(f"prompt {FEW}", 178)]
