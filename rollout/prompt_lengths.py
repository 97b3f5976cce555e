"""Prompts that are too long for the run, found among any number of them.

The sampling context of a prompt is the same system prompt and template around another text. For few prompts
each context is encoded as it is. For many, the texts alone are encoded in batches, and a context is encoded
only where its text comes close to the limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynalign.configs.errors import Mistake
from dynalign.rollout.prompts import Prompt

FEW = 2_000
"""Prompts whose contexts are all encoded: about 2 s."""
SHOWN = 20
"""A limit that is set too low refuses most prompts; beyond this number, they are only counted."""
_BATCH = 10_000
_SLACK_TOKENS = 16
"""A text and its surroundings are a token or two fewer together than apart, where they meet."""


@dataclass(frozen=True)
class Lengths:
    """How tokens are counted, and how many are allowed.

    Example: `Lengths(512, lambda text: len(text) + 9, lambda texts: [len(text) for text in texts])`.
    """

    limit: int
    """Most tokens of a sampling context (`prompts.max_tokens`)."""
    of_context: Callable[[str], int]
    """Text of a prompt → tokens of its sampling context."""
    of_texts: Callable[[Sequence[str]], Sequence[int]]
    """Texts → tokens of each alone, in one batch."""


def too_long(
    prompts: Sequence[Prompt], lengths: Lengths, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Mistake], int]:
    """A Mistake for each of the first prompts that are too long, and how many more there are.

    progress: called now and then with the number of prompts that were counted.
    """
    mistakes: list[Mistake] = []
    more = 0
    around = _around(prompts, lengths)
    rule = f"has more than {lengths.limit} tokens"
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        counts = (
            lengths.of_texts([prompt.prompt for prompt in batch]) if around is not None else [0] * len(batch)
        )
        for prompt, count in zip(batch, counts, strict=True):
            over = None if around is None else count + around - lengths.limit
            if over is not None and over < -_SLACK_TOKENS:
                continue
            if over is not None and over > _SLACK_TOKENS and len(mistakes) == SHOWN:
                more += 1
                continue
            tokens = lengths.of_context(prompt.prompt)
            if tokens > lengths.limit and len(mistakes) < SHOWN:
                mistakes.append(Mistake(f"prompt {prompt.id}", tokens, rule, "shorten it or leave it out"))
            elif tokens > lengths.limit:
                more += 1
        progress(start + len(batch))
    return mistakes, more


def _around(prompts: Sequence[Prompt], lengths: Lengths) -> int | None:
    """Tokens of a sampling context besides those of its text.

    None for few prompts, and where the number depends on the text, as with a template that changes it.
    """
    if len(prompts) <= FEW:
        return None
    texts = [prompt.prompt for prompt in (min(prompts, key=_size), max(prompts, key=_size), prompts[0])]
    alone = lengths.of_texts(texts)
    around = [lengths.of_context(text) - count for text, count in zip(texts, alone, strict=True)]
    return max(around) if max(around) - min(around) <= _SLACK_TOKENS // 2 else None


def _size(prompt: Prompt) -> int:
    return len(prompt.prompt)
