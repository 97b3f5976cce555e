"""The texts that are planted, and the other forms of an answer."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.evaluation.judge_check.planted import TIERS, first_half, planted, sentences, shuffled
from dynalign.evaluation.judge_check.sheet import GoodAnswers, first_with_text, sheet
from dynalign.evaluation.judge_check.variants import VARIANTS, variants
from dynalign.rollout.prompts import Prompt

NET = "Find the edges of the hole. Cut them clean! Then tie new meshes, for example with a needle."


def test_the_half_ends_after_a_word_and_keeps_what_is_before() -> None:
    assert first_half("one two  three\nfour five") == "one two"
    assert first_half("one two") == "one"
    assert first_half("one") is None
    assert first_half("  ") is None


def test_sentences_end_at_stops_and_lines() -> None:
    assert sentences(NET) == [
        "Find the edges of the hole.",
        "Cut them clean!",
        "Then tie new meshes, for example with a needle.",
    ]
    assert sentences("- one\n- two\n\nthree. four") == ["- one", "- two", "three.", "four"]
    assert sentences("先看。再补。") == ["先看。", "再补。"]


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=6), st.text(max_size=3))
def test_shuffled_sentences_are_the_same_in_another_order(words: list[str], seed: str) -> None:
    text = ". ".join(words)
    mixed = shuffled(text, seed)
    if len(set(sentences(text))) < 2:
        assert mixed is None
    else:
        assert mixed is not None
        assert sorted(mixed.split()) == sorted(text.split())
        assert mixed.split() != text.split()
        assert shuffled(text, seed) == mixed


def test_each_prompt_is_planted_with_the_answer_to_another_one() -> None:
    answers = {"a": NET, "b": "Read the map. Go left.", "c": " ", "d": "Wait."}
    found = planted(["a", "b", "c", "d"], answers, seed=1)
    assert list(found) == ["a", "b", "d"]
    assert [*found["a"]] == list(TIERS)
    assert found["a"]["other"] == answers["b"]
    assert found["d"] == {"good": "Wait.", "other": NET, "empty": ""}, "one word has no half and no order"
    assert "other" not in planted(["a"], answers, 1)["a"]
    assert "other" not in planted(["a", "b"], {"a": NET, "b": NET}, 1)["a"]


def test_a_form_changes_the_text_and_not_its_words() -> None:
    found = variants(NET)
    assert found["white space"].strip() == NET
    assert found["markdown"] == f"**Find the edges of the hole.**{NET[27:]}"
    assert found["bullets"].replace("- ", "").replace("\n", " ") == NET
    assert found["padding"].startswith(NET)
    assert found["paraphrase"] == NET.replace("for example", "for instance")
    assert found["duplicate"] == found["original"] == NET
    assert "plain" not in found, "it has no marks to take off"


def test_marks_are_taken_off_a_text_that_has_them() -> None:
    marked = "## Nets\n\n- **Find** the edges.\n- Cut `them`.\n1. Tie."
    found = variants(marked)
    assert found["plain"] == "Nets\n\nFind the edges.\nCut them.\nTie."
    assert "markdown" not in found
    assert "bullets" not in found


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Because it is late.", "Since it's late."),
        ("Don't use a large hook", "Do not employ a big hook"),
        ("helpful usage", None),
    ],
)
def test_a_paraphrase_keeps_capitals_and_replaces_whole_words(text: str, changed: str | None) -> None:
    assert VARIANTS["paraphrase"](text) == changed


def test_a_paraphrase_that_is_given_is_taken() -> None:
    assert variants("No.", paraphrase="Not at all.")["paraphrase"] == "Not at all."


def test_a_sheet_has_the_three_groups_of_each_prompt_that_has_an_answer() -> None:
    prompts = [Prompt(name, f"What about {name}?", "", "heldout") for name in "ab"]
    candidates = {"a": ["", NET], "b": ["", " "]}
    good = GoodAnswers(first_with_text(candidates), {})
    assert good.answers == {"a": NET}
    groups = sheet(prompts, candidates, good, seed=0)
    assert [(group.prompt_id, group.kind) for group in groups] == [
        ("a", "tiers"),
        ("a", "variants"),
        ("a", "candidates"),
        ("b", "candidates"),
    ]
    assert groups[2].names_G == ("0", "1")
    assert groups[2].texts_G == ("", NET)
    assert all(len(group.names_G) == len(group.texts_G) for group in groups)
    assert all(better in TIERS and worse in TIERS for better, worse in pairwise(TIERS))
