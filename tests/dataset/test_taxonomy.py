"""Cells: every axis even at every length, pairs even as far as they can be; own axes, and what is refused."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.dataset.taxonomy import even_cells, load_taxonomy

SHIPPED = load_taxonomy(None, "task")


def test_no_value_of_an_axis_is_ever_ahead_of_another_by_more_than_one() -> None:
    seen = {axis: Counter(dict.fromkeys(values, 0)) for axis, values in SHIPPED.items()}
    for cell in even_cells(SHIPPED, 300, seed=4):
        for axis, counts in seen.items():
            counts[
                str(
                    {"domain": cell.domain, "situation": cell.situation}.get(axis)
                    or {"stakeholder": cell.stakeholder, "region": cell.region}[axis]
                )
            ] += 1
            assert max(counts.values()) - min(counts.values()) <= 1


def test_pairs_of_values_are_nearly_even() -> None:
    cells = even_cells(SHIPPED, 1000, seed=4)
    rows = [(cell.domain, cell.situation, cell.stakeholder, cell.region) for cell in cells]
    for first, second in combinations(range(4), 2):
        counts = Counter((row[first], row[second]) for row in rows)
        sizes = [len(values) for values in SHIPPED.values()]
        share = 1000 / (sizes[first] * sizes[second])
        assert max(counts.values()) <= share + 2.5, (first, second, share, max(counts.values()))
        assert len(counts) >= 0.9 * sizes[first] * sizes[second]


def test_a_longer_set_begins_with_the_same_cells_and_another_seed_has_others() -> None:
    assert even_cells(SHIPPED, 60, seed=4)[:40] == even_cells(SHIPPED, 40, seed=4)
    assert even_cells(SHIPPED, 40, seed=5) != even_cells(SHIPPED, 40, seed=4)


def test_only_dilemmas_have_a_severity() -> None:
    assert {cell.severity for cell in even_cells(SHIPPED, 9, 0)} == {""}
    severities = Counter(cell.severity for cell in even_cells(load_taxonomy(None, "dilemma"), 9, 0))
    assert [*severities.values()] == [3, 3, 3]


GOOD = "domain: [a, b]\nsituation: [c]\nstakeholder: [d]\nregion: [e]\n"


def test_a_file_of_ones_own_replaces_the_axes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    taxonomy = load_taxonomy(str(tmp_path / "mine.yaml"), "task")
    assert taxonomy == {"domain": ("a", "b"), "situation": ("c",), "stakeholder": ("d",), "region": ("e",)}
    assert Counter(cell.domain for cell in even_cells(taxonomy, 10, 0)) == {"a": 5, "b": 5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("[a, b]", "[]"), ["domain", "is empty"]),
        (GOOD.replace("region: [e]\n", ""), ["region", "is missing"]),
        (GOOD.replace("[c]", "[c, c]"), ["situation", "'c' twice"]),
        (GOOD.replace("[d]", "[1]"), ["stakeholder", "no text"]),
        (GOOD.replace("[d]", "farmers"), ["stakeholder", "no list"]),
        (GOOD + "planet: [mars]\n", ["planet", "is no axis"]),
    ],
)
def test_a_wrong_axis_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_taxonomy(str(tmp_path / "mine.yaml"), "task")
    (mistake,) = refused.value.mistakes
    assert all(word in str(mistake) for word in words), mistake


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_taxonomy(str(tmp_path / "absent.yaml"), "task")
