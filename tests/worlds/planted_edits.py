"""Planted edits of at most a tenth of a text's words, and composed texts of which no two are near."""

import random
from collections.abc import Callable, Sequence

from dynalign.rollout.prompts import load_prompts

BUILTIN = tuple(
    prompt.prompt for part in (load_prompts("builtin"),) for prompt in (*part.train, *part.heldout)
)
VOCABULARY = sorted({word for text in BUILTIN for word in text.split()})


def _replaced(tokens: list[str], chance: random.Random) -> None:
    tokens[chance.randrange(len(tokens))] = chance.choice(VOCABULARY)


def _deleted(tokens: list[str], chance: random.Random) -> None:
    del tokens[chance.randrange(len(tokens))]


def _inserted(tokens: list[str], chance: random.Random) -> None:
    tokens.insert(chance.randrange(len(tokens) + 1), chance.choice(VOCABULARY))


def _misspelt(tokens: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(tokens))
    tokens[at] = tokens[at][:-1] + chance.choice("aeinst")


EDITS: tuple[Callable[[list[str], random.Random], None], ...] = (_replaced, _deleted, _inserted, _misspelt)


def edited(text: str, chance: random.Random) -> str:
    """The text with a tenth of its words edited, at least one, in another case, spacing and punctuation."""
    tokens = text.split()
    for _ in range(max(1, len(tokens) // 10)):
        chance.choice(EDITS)(tokens, chance)
    return disguised(" ".join(tokens), chance)


def disguised(text: str, chance: random.Random) -> str:
    """The text in another case, spacing and punctuation, and in another Unicode form of the same letters."""
    form = chance.choice((str.upper, str.lower, str.title, str.swapcase))
    marks = str.maketrans({mark: chance.choice(("", " ", "; ", " — ")) for mark in '.,!?:;—–"()'})
    spaced = chance.choice(("  ", "\n", "\t ", "\u00a0", " \u200b")).join(form(text).translate(marks).split())
    wide = str.maketrans({letter: chr(ord(letter) + 0xFEE0) for letter in "aeioAEIO"})
    return spaced.translate(wide) if chance.random() < 0.3 else spaced


FRAMES = (
    "I run {} with {} and {}. How do I {} before {}?",
    "Write {} for {}, who must {} without {}.",
    "My {} and I disagree about {}. Help us {} while {}.",
    "Explain to {} why {} matters when they {} after {}.",
)


def composed(count: int, chance: random.Random, words: Sequence[str] = VOCABULARY) -> list[str]:
    """Texts in the same few frames, each filled with words of its own."""
    texts = []
    for _ in range(count):
        parts = [" ".join(chance.sample(words, chance.randint(3, 9))) for _ in range(5)]
        frame = chance.choice(FRAMES)
        texts.append(frame.format(*parts[: frame.count("{}")]))
    return texts
