"""Answers of known order: a good one, the same spoiled in three ways, and none.

    good       an answer to the prompt
    half       its first half, by words
    shuffled   its sentences in another order
    other      the good answer to another prompt
    empty      no text

The good answer is better than each of the others, and any text is better than none. Which of `half` and
`shuffled` is worse depends on the answer.
"""

import random
import re
from collections.abc import Mapping, Sequence

TIERS = ("good", "half", "shuffled", "other", "empty")
"""In their planted order, best first."""
SPOILED = ("half", "shuffled", "other")
"""What the good answer is compared with. `empty` is not among them: most judges never see an empty text."""

_WORD = re.compile(r"\S+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*|\n+")


def planted(prompt_ids: Sequence[str], answers: Mapping[str, str], seed: int) -> dict[str, dict[str, str]]:
    """Prompt id → tier → text, for the prompts with a good answer.

    answers: prompt id → good answer. A tier that an answer does not allow is left out: half of one word, the
    only sentence in another order, another prompt's answer where there is none.
    """
    answered = [prompt_id for prompt_id in prompt_ids if answers.get(prompt_id, "").strip()]
    found: dict[str, dict[str, str]] = {}
    for place, prompt_id in enumerate(answered):
        good = answers[prompt_id]
        others = [answers[each] for each in (*answered[place + 1 :], *answered[:place])]
        tiers = {
            "good": good,
            "half": first_half(good),
            "shuffled": shuffled(good, f"{seed}/{prompt_id}"),
            "other": next((other for other in others if other != good), None),
            "empty": "",
        }
        found[prompt_id] = {name: text for name, text in tiers.items() if text is not None}
    return found


def first_half(text: str) -> str | None:
    """The first half of a text's words; None for fewer than two words."""
    words = list(_WORD.finditer(text))
    return text[: words[len(words) // 2 - 1].end()] if len(words) > 1 else None


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def shuffled(text: str, seed: str) -> str | None:
    """The sentences in another order than their own, the same for the same seed; None where there is none."""
    parts = sentences(text)
    if len(set(parts)) < 2:
        return None
    rng = random.Random(seed)
    mixed = parts
    while mixed == parts:
        mixed = rng.sample(parts, len(parts))
    return " ".join(mixed)
