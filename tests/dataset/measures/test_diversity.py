import gzip
import random

import numpy as np
import pytest

from dynalign.dataset.measures.diversity import (
    Spread,
    compression_ratio,
    diversity,
    self_bleu,
    vendi_score,
)
from tests.worlds.planted_edits import BUILTIN, composed

A = ["mend", "the", "old", "net"]
B = ["paint", "a", "new", "boat"]


def test_the_vendi_score_counts_wholly_different_texts() -> None:
    assert vendi_score([A] * 7) == pytest.approx(1.0)
    assert vendi_score([A, B]) == pytest.approx(2.0)
    assert vendi_score([A, A, A, B, B, B]) == pytest.approx(2.0)
    assert vendi_score([[f"word{number}"] for number in range(9)]) == pytest.approx(9.0)


def test_the_vendi_score_of_half_alike_texts_is_that_of_the_definition() -> None:
    # "a b" and "a c": cosine of words 1/2, of pairs 0; K/2 has the eigenvalues (1 ± 1/4) / 2.
    shares = np.array([0.625, 0.375])
    expected = float(np.exp(-np.sum(shares * np.log(shares))))
    assert vendi_score([["a", "b"], ["a", "c"]]) == pytest.approx(expected)


def test_texts_that_are_too_short_for_a_pair_of_words_are_compared_as_a_whole() -> None:
    assert vendi_score([["net"], ["net"], A]) < 2.0
    assert vendi_score([[], [], A]) == pytest.approx(vendi_score([B, B, A]))


def test_the_compression_ratio_is_that_of_gzip_without_its_header() -> None:
    texts = list(BUILTIN[:80])
    plain = "\n".join(texts).encode()
    head_and_tail = 12  # gzip: 18 bytes around the same stream; zlib: 6
    assert compression_ratio(texts) == pytest.approx(
        len(plain) / (len(gzip.compress(plain, 9)) - head_and_tail), rel=1e-9
    )
    assert compression_ratio(texts * 3) > 2 * compression_ratio(texts)


def test_self_bleu_is_one_for_repeats_and_near_zero_for_different_texts() -> None:
    assert self_bleu([A, A, A]) == pytest.approx(1.0)
    # No n-gram in common: 0.1 of 4, 3, 2, 1.
    assert self_bleu([A, B]) == pytest.approx((0.1**4 / (4 * 3 * 2 * 1)) ** 0.25)


def test_self_bleu_is_as_computed_by_hand_with_clipping_and_brevity() -> None:
    # "a a b" against "a b c d": words a 1 of 2 (clipped), b: 2/3; pairs ab of aa, ab: 1/2; triples 0.1/1;
    # no run of four. Brevity exp(1 - 4/3). The other way: 2/4, 1/3, 0.1/2, 0.1/1; no brevity.
    one = (2 / 3 * 1 / 2 * 0.1) ** (1 / 3) * np.exp(1 - 4 / 3)
    other = (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1) ** (1 / 4)
    assert self_bleu([["a", "a", "b"], ["a", "b", "c", "d"]]) == pytest.approx((one + other) / 2)


def test_self_bleu_equals_that_of_another_implementation() -> None:
    # nltk 3.10.4: sentence_bleu(others, text, smoothing_function=SmoothingFunction().method1), meaned.
    texts = [text.lower().split() for text in BUILTIN[:12]]
    assert self_bleu(texts) == pytest.approx(NLTK_SELF_BLEU, rel=1e-9)


NLTK_SELF_BLEU = 0.018203084583685282


def test_a_set_is_measured_by_samples_of_one_size() -> None:
    found = diversity(BUILTIN, size=50, draws=4)
    assert found.size == 50
    for spread in (found.vendi, found.compression, found.self_bleu):
        assert spread.low < spread.mean < spread.high
    assert found == diversity(BUILTIN, size=50, draws=4)
    assert found != diversity(BUILTIN, size=50, draws=4, seed=1)
    whole = diversity(BUILTIN[:20], size=50)
    assert whole.size == 20
    assert whole.vendi.low == whole.vendi.high


def test_a_set_in_few_frames_is_less_varied_by_every_figure() -> None:
    chance = random.Random(5)
    few_words = composed(
        60, chance, ["net", "boat", "river", "letter", "school", "garden", "law", "song", "bread"]
    )
    rich = diversity(BUILTIN, size=60)
    poor = diversity(few_words, size=60)
    assert poor.vendi.high < rich.vendi.low
    assert poor.compression.low > rich.compression.high
    assert poor.self_bleu.low > rich.self_bleu.high


def test_one_text_has_no_diversity() -> None:
    with pytest.raises(ValueError, match="at least two texts"):
        diversity(["alone"])
    same = diversity(["one two three four"] * 2)
    assert same.vendi.mean == pytest.approx(1.0)
    assert same.self_bleu == Spread(1.0, 1.0, 1.0)
