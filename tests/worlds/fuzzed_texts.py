"""Fuzzed texts in contexts: how many of them put a control token there, or break the frame around them.

    python -m tests.worlds.fuzzed_texts 1000000 SEED     the same over all tokenizers, which takes minutes

Strings are made of spellings of control tokens, pieces, other cases and wide forms of them, and characters of
many classes of Unicode. A context holds `PER_CONTEXT` of them, one behind the other, so that pieces meet at
their borders too. Half of the contexts are a judge's, half those of a plain user's text.
"""

import logging
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.endpoint.base import Message
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message
from tests.worlds.chat_models import SPECIAL, TEMPLATE
from tests.worlds.chat_templates import FAMILIES, family_tokenizer
from tests.worlds.framed_judge import short_texts

_log = logging.getLogger(__name__)

PER_CONTEXT = 100
CLASSES = (
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0x80, 0xFF), (0x300, 0x36F), (0x400, 0x4FF), (0x590, 0x6FF),
    (0x900, 0x97F), (0x2000, 0x206F), (0x2190, 0x23FF), (0x2581, 0x2581), (0x3040, 0x30FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFE00, 0xFE6F), (0xFF01, 0xFFEF), (0x1F300, 0x1FAFF),
    (0xE0001, 0xE007F), (0x10FFF0, 0x10FFFD),
)  # fmt: skip
"""Ranges of code points: printable, control, combining, right to left, zero width, wide, tags, private, …"""


def fuzzed(spelled: Sequence[str], seed: object) -> Iterator[str]:
    """Strings without end, the same for the same seed. spelled: the control tokens of a tokenizer."""
    draw = random.Random(str(seed))
    while True:
        yield "".join(_piece(spelled, draw) for _ in range(draw.randint(1, 5)))


def _piece(spelled: Sequence[str], draw: random.Random) -> str:
    kind = draw.random()
    token = draw.choice(spelled)
    if kind < 0.35:
        low, high = draw.choice(CLASSES)
        return "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 4)))
    if kind < 0.5:
        return token
    cut = draw.randint(0, len(token))
    if kind < 0.65:
        return token[:cut]
    if kind < 0.8:
        return token[cut:]
    if kind < 0.85:
        return token.swapcase()
    if kind < 0.9:
        return token.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    return token[:cut] + draw.choice((" ", "\u200b", "\n", "\u00ad", "<", "[", "]")) + token[cut:]


def segments(contexts: Contexts, token_ids: Sequence[int]) -> tuple[list[int], list[tuple[int, ...]]]:
    """The added tokens of a context, and what stands between them."""
    added = contexts.tokenizer.added_tokens_decoder
    controls: list[int] = []
    between: list[list[int]] = [[]]
    for token in token_ids:
        if token in added:
            controls.append(token)
            between.append([])
        else:
            between[-1].append(token)
    return controls, [tuple(each) for each in between]


class Frame:
    """The context of a text, judged or asked, and whether another text leaves all of it but itself as it
    was."""

    def __init__(self, contexts: Contexts, texts: ValueTexts, judged: bool) -> None:
        self._contexts = contexts
        self._texts = texts
        self._judged = judged
        self._controls, self._between = segments(contexts, self._made("x"))
        other = segments(contexts, self._made("y"))[1]
        pairs = zip(self._between, other, strict=True)
        (self._place,) = (place for place, (one, two) in enumerate(pairs) if one != two)

    def holds(self, text: str) -> bool:
        controls, between = segments(self._contexts, self._made(text))
        if controls != self._controls:
            return False
        return all(
            one == two
            for place, (one, two) in enumerate(zip(self._between, between, strict=True))
            if place != self._place
        )

    def _made(self, text: str) -> tuple[int, ...]:
        if not self._judged:
            return self._contexts.chat_context([Message("user", text)], None)
        return self._contexts.judge_context(judge_user_message(self._texts, "unified", "a", text), "Grade: ")


def broken_by(contexts: Contexts, strings: int, seed: object) -> list[str]:
    """The contexts' texts, of `strings` fuzzed strings, that put a control token there or break the frame."""
    texts = short_texts(JudgeSettings())
    frames = [Frame(contexts, texts, judged) for judged in (True, False)]
    spelled = [added.content for added in contexts.tokenizer.added_tokens_decoder.values()]
    source = fuzzed(spelled, seed)
    found = []
    for number in range(-(-strings // PER_CONTEXT)):
        text = "".join(islice(source, PER_CONTEXT))
        if not frames[number % 2].holds(text):
            found.append(text)
    return found


def merging_tokenizer(normalized: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose merges reach over the borders of words, marks and lines.

    normalized: with compatibility forms (NFKC) and lower case, which can bring a broken spelling back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalized:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*islice(fuzzed(SPECIAL, "merges"), 300), TEMPLATE * 3], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=list(SPECIAL)
    )
    fast.chat_template = TEMPLATE
    return fast


def all_tokenizers() -> Mapping[str, PreTrainedTokenizerFast]:
    """Name → tokenizer: those of the families, and two whose merges and normalizers make it harder."""
    merging = {"merges": merging_tokenizer(), "merges, normalized": merging_tokenizer(normalized=True)}
    return {name: family_tokenizer(name) for name in FAMILIES} | merging


def saved_contexts(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Contexts:
    tokenizer.save_pretrained(folder)
    return load_contexts(folder, "s", "2026-01-01")


def main(strings: int, seed: str) -> None:
    tokenizers = all_tokenizers()
    each = -(-strings // len(tokenizers))
    for name, tokenizer in tokenizers.items():
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = broken_by(saved_contexts(tokenizer, Path(folder)), each, f"{seed}/{name}")
        took_s = time.monotonic() - started_s
        _log.info("%s: %s strings, %s contexts broken, %.0f s", name, each, len(found), took_s)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(int(sys.argv[1]), sys.argv[2])
