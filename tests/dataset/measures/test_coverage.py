import math

import pytest

from dynalign.dataset.measures.coverage import coverage, crossed


def test_an_even_axis_has_entropy_one_and_the_equal_share() -> None:
    found = coverage("domain", ["craft", "care", "law"] * 4)
    assert found.entropy == pytest.approx(1.0)
    assert found.smallest_share == pytest.approx(1.0)
    assert found.counts == {"care": 4, "craft": 4, "law": 4}


def test_an_uneven_axis_is_measured_against_the_logarithm_of_its_values() -> None:
    found = coverage("domain", ["craft", "craft", "craft", "care"])
    assert found.entropy == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert found.smallest_share == pytest.approx(0.5)


def test_a_value_of_the_taxonomy_that_no_text_has_counts() -> None:
    found = coverage("region", ["Asia", "Asia", "Africa", "Africa"], known=("Africa", "Asia", "Oceania"))
    assert list(found.counts.items()) == [("Africa", 2), ("Asia", 2), ("Oceania", 0)]
    assert found.entropy == pytest.approx(math.log(2) / math.log(3))
    assert found.smallest_share == 0.0


def test_one_value_leaves_no_choice_and_no_text_is_an_error() -> None:
    assert coverage("kind", ["task", "task"]).entropy == 1.0
    with pytest.raises(ValueError, match="the axis kind has no text"):
        coverage("kind", [])


def test_texts_are_counted_by_the_values_of_two_axes() -> None:
    found = crossed(("domain", "region"), ["craft", "craft", "law"], ["Asia", "Asia", "Africa"])
    assert found.counts == {("craft", "Asia"): 2, ("law", "Africa"): 1}
    with pytest.raises(ValueError, match="shorter"):
        crossed(("domain", "region"), ["craft", "law"], ["Asia"])
