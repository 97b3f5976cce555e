import pytest

from dynalign.dataset.measures.examination import GivenSet, WordCounts, examine, word_counts
from tests.worlds.planted_edits import BUILTIN


def given(name: str, texts: tuple[str, ...], holds: tuple[str, ...] = ()) -> GivenSet:
    return GivenSet(name, texts, {}, {}, holds)


def test_word_counts_are_those_of_the_sorted_lengths() -> None:
    texts = ["one", "one two", "one two three four", "a b c"]
    assert word_counts(texts) == WordCounts(1, 1, 2.5, 2.5, 4, 4)
    assert word_counts(["x"]) == WordCounts(1, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="at least one text"):
        word_counts([])


def test_sets_are_measured_on_samples_of_the_smallest_one() -> None:
    found = examine([given("many", BUILTIN[:50]), given("few", BUILTIN[60:70])], {})
    assert [each.diversity and each.diversity.size for each in found] == [10, 10]
    (single,) = examine([given("one", ("alone",))], {})
    assert single.diversity is None
    assert single.nearest == ()


def test_a_set_is_compared_with_those_before_it_and_not_with_its_own_part() -> None:
    evaluation = {"quiz": list(BUILTIN[:3])}
    first, second = examine([given("a", BUILTIN[:5], holds=("quiz",)), given("b", BUILTIN[2:7])], evaluation)
    assert (first.near_duplicates, first.leaks) == ((), ())
    assert [(each.number, each.twin.source) for each in second.near_duplicates] == [
        (0, "quiz"),
        (1, "a"),
        (2, "a"),
    ]
    assert [leak.number for leak in second.leaks] == [0]
    assert first.distinct == first.compared == first.texts == 5
