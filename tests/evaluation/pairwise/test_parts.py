"""Internalization, transfer, aspects, and an external measure, on planted numbers."""

from pathlib import Path

import pytest
from scipy import stats

from dynalign.configs.errors import UserError
from dynalign.evaluation.pairwise.aspects import AspectRow, aspects
from dynalign.evaluation.pairwise.external import external_results, read_items
from dynalign.evaluation.pairwise.internalization import internalization
from dynalign.evaluation.pairwise.records import Label
from dynalign.evaluation.pairwise.transfer import difference
from dynalign.evaluation.statistics.estimates import mean_interval
from tests.worlds.planted_pairs import comparison

WON: list[tuple[Label, Label]] = [("win", "win")] * 8 + [("loss", "loss")] * 2
BETTER: list[tuple[Label, Label]] = [("win", "win")] * 9 + [("loss", "loss")]
EVEN: list[tuple[Label, Label]] = [("win", "win"), ("loss", "loss")] * 5


def test_the_difference_of_differences_is_worked_by_hand() -> None:
    found = internalization(comparison(WON), comparison(BETTER), comparison(BETTER))
    assert [each.mean for each in (found.gain_aligned, found.gain_base, found.difference) if each] == (
        pytest.approx([0.1, 0.4, -0.3])
    )
    assert found.reach is not None
    assert found.reach.mean == pytest.approx(-0.1)
    assert found.prompts == 10


def test_a_value_in_the_weights_is_told_from_one_that_is_not() -> None:
    many = [("win", "win")] * 90 + [("loss", "loss")] * 10
    even = [("win", "win"), ("loss", "loss")] * 50
    moved = internalization(comparison(many), comparison(many), comparison(many))  # type: ignore[arg-type]
    assert moved.sentence.startswith("the value is in the weights")
    still = internalization(comparison(even), comparison(many), comparison(many))  # type: ignore[arg-type]
    assert still.sentence.startswith("inconclusive")
    unread = internalization(comparison([("unread", "win")]), comparison(EVEN[:1]), comparison(EVEN[:1]))
    assert (unread.prompts, unread.difference) == (0, None)


def test_the_gap_of_two_sources_has_welch_s_interval() -> None:
    one = [0.0, 0.5, 1.0, 1.0, 0.5, 1.0]
    other = [0.0, 0.5, 0.0, 1.0, 0.5, 0.0, 0.0, 0.5]
    found = difference(mean_interval(one), mean_interval(other))
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert difference(mean_interval(one), None) is None


def test_an_aspect_that_makes_the_whole_is_told_from_one_that_does_not() -> None:
    rows = [
        AspectRow(
            f"p{prompt}",
            f"p{prompt}",
            model,
            {
                "whole": 2.0 + gain + prompt % 3,
                "power": 1.0 + gain + prompt % 3,
                "vitality": float((prompt * 7) % 5),
                "knowledge": None,
            },
        )
        for prompt in range(30)
        for model, gain in (("aligned", 1.0 + prompt % 2), ("base", 0.0))
    ]
    found = aspects("judge", rows, "aligned", "base")
    changes = {each.aspect: each.change for each in found.results}
    assert changes["power"] is not None
    assert changes["power"].mean == 1.5
    assert changes["knowledge"] is None
    assert found.results[3].missing == 60
    pairs = {(each.first, each.second): each for each in found.pairs}
    together = pairs["whole", "power"]
    assert together.within is not None
    assert together.within.mean == pytest.approx(1.0)
    apart = pairs["whole", "vitality"]
    assert apart.within is None  # both answers to a prompt have the same
    assert apart.between is not None
    assert abs(apart.between.mean) < 0.5


def test_external_items_are_read_from_the_folders_of_the_benchmark_and_from_rows(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "encourage_learning"
    folder.mkdir(parents=True)
    (folder / "raw.csv").write_text("prompt,subject_response,score\na,b,3\nc,d,4.5\n")
    (tmp_path / "out" / "rows.jsonl").write_text(
        '{"prompt": "e", "response": "f", "human_score": 1, "score": 9,'
        ' "dimension": "correct_misinformation"}\n'
    )
    items = read_items(tmp_path / "out")
    assert [(each.dimension, each.score) for each in items] == [
        ("encourage_learning", 3.0),
        ("encourage_learning", 4.5),
        ("correct_misinformation", 1.0),
    ]
    results = external_results(items, [1.0, None, 2.0])
    found = [(each.dimension, each.items, each.unread, each.correlation) for each in results]
    assert found == [
        ("correct_misinformation", 1, 0, None),
        ("encourage_learning", 1, 1, None),
        ("all", 2, 1, None),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt,score\na,3\n", "raw.csv:1: has no subject_response/response/answer, dimension"),
        ("prompt,answer,score,dimension\na,b,high,x\n", "raw.csv:1 = 'high': its score is no number"),
    ],
)
def test_a_row_of_another_form_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "raw.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        read_items(tmp_path / "raw.csv")
    assert words in str(caught.value)


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--external"):
        read_items(tmp_path / "absent")
