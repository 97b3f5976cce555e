"""The same answer in another form. What it says does not change, so a judge's score should not either."""

import re
from collections.abc import Callable

from dynalign.evaluation.judge_check.planted import sentences

PADDING = (
    " In short, that is the answer to the question that was asked. It has been given above, and there are of"
    " course many further things that could be said about it. I hope that this is helpful."
)
"""Says nothing, at some length."""
_MARKS = re.compile(r"^(#{1,6} +|[-*+] +|\d+[.)] +|> *)|(\*\*|__|`)", re.MULTILINE)
_SAME_MEANING = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("cannot", "can't"),
    ("is not", "isn't"),
    ("it is", "it's"),
    ("you are", "you're"),
    ("for example", "for instance"),
    ("in order to", "to"),
    ("because", "since"),
    ("however", "but"),
    ("additionally", "also"),
    ("such as", "like"),
    ("important", "essential"),
    ("help", "assist"),
    ("begin", "start"),
    ("many", "a lot of"),
    ("need to", "have to"),
    ("large", "big"),
    ("show", "demonstrate"),
    ("use", "employ"),
)
"""Words for words of the same meaning, each way. Crude: what a paraphrase file brings is better."""
_EACH_WAY = dict(_SAME_MEANING) | {second: first for first, second in _SAME_MEANING}
_REPLACED = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _EACH_WAY), key=len, reverse=True)) + r")\b", re.IGNORECASE
)


def trailing_space(text: str) -> str:
    """White space after the text."""
    return text + "  \n\n"


def markdown(text: str) -> str | None:
    """The first sentence in bold, for a text without marks; None for others."""
    parts = sentences(text)
    if not parts or _MARKS.search(text):
        return None
    return text.replace(parts[0], f"**{parts[0]}**", 1)


def plain(text: str) -> str | None:
    """The text without the marks of Markdown; None if it has none."""
    bare = _MARKS.sub("", text)
    return bare if bare != text and bare.strip() else None


def bullets(text: str) -> str | None:
    """Each sentence on a line of its own, with a bullet; None for one sentence, or a text with marks."""
    parts = sentences(text)
    if len(parts) < 2 or _MARKS.search(text):
        return None
    return "\n".join(f"- {part}" for part in parts)


def padded(text: str) -> str:
    """The text with sentences after it that add nothing."""
    return text.rstrip() + PADDING


def paraphrased(text: str) -> str | None:
    """Single words replaced by others of the same meaning; None if it has none of those."""

    def other(found: re.Match[str]) -> str:
        word = _EACH_WAY[found[0].lower()]
        return word[0].upper() + word[1:] if found[0][0].isupper() else word

    changed = _REPLACED.sub(other, text)
    return changed if changed != text else None


def same(text: str) -> str:
    """The text itself, a second time in one group."""
    return text


VARIANTS: dict[str, Callable[[str], str | None]] = {
    "white space": trailing_space,
    "markdown": markdown,
    "plain": plain,
    "bullets": bullets,
    "padding": padded,
    "paraphrase": paraphrased,
    "duplicate": same,
}
"""Name → how the text is changed; None where it does not apply to a text."""
ORIGINAL = "original"
"""Name of the unchanged answer beside its variants."""


def variants(answer: str, paraphrase: str | None = None) -> dict[str, str]:
    """Name → text: the answer, and each variant that applies to it.

    paraphrase: one that a person or a better model wrote; None: words are replaced."""
    made = {name: change(answer) for name, change in VARIANTS.items()}
    if paraphrase is not None:
        made["paraphrase"] = paraphrase
    return {ORIGINAL: answer} | {name: text for name, text in made.items() if text is not None}
