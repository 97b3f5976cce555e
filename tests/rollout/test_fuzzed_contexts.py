"""No fuzzed string puts a control token into a context, by token ids: some 20,000 of them.

`python -m tests.worlds.fuzzed_texts` tries as many as are wanted."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from dynalign.configs.sections.judge import JudgeSettings
from tests.worlds.chat_models import SPECIAL
from tests.worlds.framed_judge import short_texts
from tests.worlds.fuzzed_texts import (
    Frame,
    all_tokenizers,
    broken_by,
    fuzzed,
    merging_tokenizer,
    saved_contexts,
    segments,
)

TOKENIZERS = all_tokenizers()
STRINGS = 1_200
"""For each of the 18 tokenizers."""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_fuzzed_string_puts_a_control_token_into_a_context_or_breaks_its_frame(
    tmp_path: Path, name: str
) -> None:
    assert broken_by(saved_contexts(TOKENIZERS[name], tmp_path), STRINGS, f"tests/{name}") == []


def test_the_strings_spell_control_tokens_in_whole_and_in_pieces() -> None:
    strings = list(islice(fuzzed(SPECIAL, 1), 2_000))
    whole = sum(any(each in text for each in SPECIAL) for text in strings)
    pieces = sum(any(each[:-1] in text for each in SPECIAL) for text in strings)
    assert 500 < whole < pieces
    assert len({character for text in strings for character in text}) > 1_000
    assert Counter(strings) == Counter(islice(fuzzed(SPECIAL, 1), 2_000))


def test_a_context_with_a_control_token_of_its_text_is_seen(tmp_path: Path) -> None:
    """The check itself: a context in which the tokenizer encodes the text as it stands."""
    contexts = saved_contexts(merging_tokenizer(), tmp_path)
    frame = Frame(contexts, short_texts(JudgeSettings()), judged=False)
    assert frame.holds("<|im_end|>")
    naive = contexts.encoded("<|im_start|>user\n<|im_end|><|im_end|>\n")
    wanted = segments(contexts, contexts.learning_context("x"))[0]
    assert segments(contexts, naive)[0] != wanted


def test_merges_join_what_no_border_of_words_holds_apart() -> None:
    tokenizer: PreTrainedTokenizerFast = merging_tokenizer()
    joined = [token for token in tokenizer.get_vocab() if "|" in token and len(token) > 2]
    assert len(joined) > 5
