import random

import pytest

from dynalign.dataset.measures.contamination import EvaluationGrams, Leak, leaks
from tests.worlds.planted_edits import BUILTIN, composed, disguised

ITEMS = composed(300, random.Random(10))
SETS = EvaluationGrams({"builtin held-out": BUILTIN[::6], "made up": ITEMS})


def test_planted_leaks_are_found_in_another_case_spacing_punctuation_and_unicode_form() -> None:
    chance = random.Random(11)
    clean = composed(300, chance)
    prompts = []
    for text, item in zip(clean, ITEMS, strict=True):
        tokens = item.split()
        start = chance.randrange(max(1, len(tokens) - 15))
        prompts.append(f"{text} {disguised(' '.join(tokens[start : start + 16]), chance)}, and {text[:40]}")
    found = list(leaks(prompts, SETS))
    assert [leak.number for leak in found] == list(range(300))
    assert {leak.source for leak in found} == {"made up"}
    assert [leak.item for leak in found] == list(range(300))


def test_a_thousand_clean_prompts_are_clean() -> None:
    clean = composed(1_000, random.Random(12))
    assert list(leaks(clean, SETS)) == []
    rest = [text for number, text in enumerate(BUILTIN) if number % 6]
    assert list(leaks(rest, SETS)) == []


def test_a_leak_names_the_set_the_item_and_the_words() -> None:
    item = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
    sets = EvaluationGrams({"first": ["not this"], "second": ["other", item]})
    prompt = "Please: THREE-four five six seven eight nine ten eleven, twelve thirteen fourteen… two three"
    assert sets.leak(5, prompt) is None
    prompt = (
        "Please: two THREE-four five six seven eight nine ten eleven, twelve thirteen fourteen… two three"
    )
    words = "two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert sets.leak(5, prompt) == Leak(5, "second", 1, words)
    assert sets.names == ("first", "second")


@pytest.mark.parametrize("prompt", ["Twelve words", "prefix: What  is the capital of France?"])
def test_an_item_of_few_words_is_found_only_alone(prompt: str) -> None:
    sets = EvaluationGrams({"quiz": ["What is the capital of France?", "", "?!"]})
    assert sets.leak(0, prompt) is None
    assert sets.leak(0, "what is the CAPITAL of france") == Leak(
        0, "quiz", 0, "what is the capital of france"
    )


def test_an_item_of_eight_to_twelve_words_is_found_whole() -> None:
    sets = EvaluationGrams({"quiz": ["Which one of these rivers runs to the east?"]})
    found = sets.leak(0, "Tell me, which one of these rivers runs to the EAST, and why?")
    assert found == Leak(0, "quiz", 0, "which one of these rivers runs to the east")
    assert sets.leak(0, "Tell me, which one of these rivers runs to the west, and why?") is None


def test_joined_and_split_words_are_the_same_words() -> None:
    item = "Write an e-mail to the co-operative about the set-up of the web site and its costs"
    sets = EvaluationGrams({"mail": [item]})
    prompt = "write an email to the cooperative about the set up of the website and its costs please"
    assert sets.leak(0, prompt) is not None


def test_a_language_without_spaces_is_compared_by_its_characters() -> None:
    sets = EvaluationGrams({"zh": ["请写一封信给你的老师说明你为什么没有完成作业"]})
    assert sets.leak(0, "你好，请写一封信，给你的老师说明你为什么 没有完成。") is not None
    assert sets.leak(0, "请写一封信给你的朋友") is None
