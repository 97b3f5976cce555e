"""The summary of a run: one account that adds up, in words and in a file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign.configs.errors import RecordError
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.summary import (
    Change,
    Summary,
    conservation_line,
    duration,
    read_summary,
    summarize,
    summary_lines,
    write_summary,
)


def summary_of(**changes: Any) -> Summary:
    change = Change("held-out reward", 0, Estimate(1.49, 1.4, 1.58, 9), 20, Estimate(1.59, 1.51, 1.67, 9))
    reasons = {"run_ended": 1, "low_signal": 3}
    whole = Summary(
        "quickstart", "finished", 8, 8, 252.0, 32, 0, 0, 0, 28, reasons, [change], "r.html", "c", None
    )
    return replace(whole, **changes)


def test_the_account_of_the_groups_is_one_line_that_adds_up() -> None:
    line = "issued 32 = pending 0 + leased 0 + scored 0 + trained 28 + withheld 4 (low_signal 3, run_ended 1)"
    assert conservation_line(summary_of()) == line
    assert conservation_line(summary_of(issued=28, withheld_by_reason={})).endswith(
        "+ trained 28 + withheld 0"
    )


def test_the_end_of_a_run_is_told_in_whole_sentences() -> None:
    assert summary_lines(summary_of()) == [
        "run quickstart finished: 8 of 8 steps in 4 min 12 s",
        "held-out reward: 1.49 (1.40 to 1.58) before training, 1.59 (1.51 to 1.67) at step 20",
        "issued 32 = pending 0 + leased 0 + scored 0 + trained 28 + withheld 4 (low_signal 3, run_ended 1)",
        "checkpoint: c",
        "report: r.html",
    ]
    assert summary_lines(summary_of(state="failed", cause="the learner died"))[1] == "cause: the learner died"


def test_a_summary_round_trips_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    write_summary(tmp_path, summary_of())
    assert read_summary(tmp_path) == summary_of()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_summary_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"run": "quickstart"}')
    with pytest.raises(RecordError, match=r"summary\.json: not a summary"):
        read_summary(tmp_path)


def test_a_run_without_a_step_has_a_summary_too(tmp_path: Path) -> None:
    terms = dict.fromkeys(("issued", "pending", "leased", "scored", "trained"), 0)
    summary = summarize(tmp_path, "failed", 8, terms | {"withheld_by_reason": {}}, 3.0, cause="no engine")
    assert (summary.step, summary.rewards, summary.withheld) == (0, [], 0)
    assert summary_lines(summary)[1:] == [
        "cause: no engine",
        "issued 0 = pending 0 + leased 0 + scored 0 + trained 0 + withheld 0",
        f"report: {tmp_path / 'report.html'}",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (252, "4 min 12 s"), (11_220, "3 h 07 min")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
