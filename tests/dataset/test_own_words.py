"""The value's own words are found however they are written; other words that hold them are not."""

from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.dataset.own_words import named_words
from dynalign.rollout.judges.value_texts import load_definition

OWN = ("collective agency", "vitality")


@pytest.mark.parametrize(
    "text", ["Collective Agency", "COLLECTIVE-\n agency!", "a_collective_agency_b", "«Vitality»"]
)
def test_they_are_found_whatever_their_case_and_what_stands_between(text: str) -> None:
    assert named_words([text], OWN)


@pytest.mark.parametrize("text", ["collective and agency", "revitality", "vitalityx", "our collective", ""])
def test_other_words_are_not_taken_for_them(text: str) -> None:
    assert named_words([text], OWN) == []


def test_the_shipped_value_names_itself_and_its_rarer_aspects() -> None:
    own = load_definition(None).own_words
    assert "collective agency" in own
    assert named_words(["a sense of AGENCY"], own) == ["agency"]
    assert named_words(["a power cut, and the knowledge of it"], own) == []


def test_a_value_without_a_list_is_known_by_its_heading_and_one_without_either_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "collective_agency.md").write_text("# Quiet Order\n\nOrder is …")
    assert load_definition(tmp_path).own_words == ("Quiet Order",)
    (tmp_path / "collective_agency.md").write_text("Order is …")
    with pytest.raises(UserError, match=r"own_words\.txt"):
        load_definition(tmp_path)
    (tmp_path / "own_words.txt").write_text("# words\nquiet order\n")
    assert load_definition(tmp_path).own_words == ("quiet order",)
