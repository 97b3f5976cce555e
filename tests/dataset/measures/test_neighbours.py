import pytest

from dynalign.dataset.measures.near_duplicates import jaccard, shingles
from dynalign.dataset.measures.neighbours import MOST_TEXTS, Neighbour, evenly_spaced, neighbours
from tests.worlds.planted_edits import BUILTIN


def test_each_text_gets_its_nearest_other_text() -> None:
    texts = BUILTIN[:40]
    sets = [shingles(text) for text in texts]
    for found in neighbours(texts):
        similar = [jaccard(sets[found.number], other) for other in sets]
        similar[found.number] = -1.0
        assert found.similarity == pytest.approx(max(similar))
        assert found.other == similar.index(max(similar))


def test_copies_are_neighbours_of_each_other() -> None:
    assert neighbours(["a b", "c d", "A b."])[::2] == (Neighbour(0, 2, 1.0), Neighbour(2, 0, 1.0))
    assert neighbours(["a b"]) == ()
    assert neighbours([]) == ()


def test_of_very_many_texts_evenly_spaced_ones_are_taken() -> None:
    assert evenly_spaced(10, 4) == [0, 2, 5, 7]
    assert evenly_spaced(3, 4) == [0, 1, 2]
    chosen = evenly_spaced(1_000_003, MOST_TEXTS)
    assert len(set(chosen)) == MOST_TEXTS
    assert chosen[-1] < 1_000_003
