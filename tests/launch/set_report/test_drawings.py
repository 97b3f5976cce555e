import re

from dynalign.launch.report.judge_tables import CardTable
from dynalign.launch.set_report.drawings import bars, grid
from dynalign.launch.set_report.tables import as_lines, as_markdown, shortened


def test_a_grid_has_a_cell_for_each_two_values_and_shows_its_counts() -> None:
    svg = str(grid("title", ["a<b>", "c"], ["x", "y", "z"], {("a<b>", "x"): 4, ("c", "z"): 2}))
    assert svg.count('class="cell"') == 6
    assert "<title>a&lt;b&gt; · x: 4</title>" in svg
    assert "<title>c · y: 0</title>" in svg
    shades = [float(each) for each in re.findall(r'opacity="([\d.]+)"', svg)]
    assert shades == [0.7, 0.0, 0.0, 0.0, 0.0, 0.4]


def test_bars_hold_every_value_once() -> None:
    svg = str(bars("title", "words", [0.0, 0.9, 1.0, 1.5, 2.0, 9.0], [0.0, 1.0, 2.0, 3.0]))
    assert [int(each) for each in re.findall(r": (\d+)</title>", svg)] == [2, 2, 2]
    assert "<svg" in str(bars("title", "words", [], [0.0, 1.0]))


def test_a_table_is_aligned_text_and_markdown_without_markup() -> None:
    table = CardTable("Name", ("", "a"), (("row|one", "<b>"), ("two", "3")), "caption")
    assert as_lines(table) == ["Name", "           a", "  row|one  <b>", "  two      3"]
    assert "| row\\|one | \\<b\\> |" in as_markdown(table)


def test_a_shown_text_is_one_line() -> None:
    assert shortened("a\n\x1b[31mb\tc") == "a [31mb c"
    assert len(shortened("word " * 90)) == 90
