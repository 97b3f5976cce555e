"""What a step's row adds to what learner and ledger say: shares over all settled groups, and what
judging costs."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from dynalign.actors.coordinator.step_row import WorkerTotals, step_row
from dynalign.run_folder.run_status import JudgeCost
from tests.worlds.supervised_run import WORKER_STATS

TERMS = ("issued", "pending", "leased", "scored", "trained", "withheld", "requeued", "late", "rolled_back")
LEARNED = {
    "step_s": 2.0,
    "score_variance_within": 1.0,
    "judge_noise_std": 0.5,
    "unparsed_fraction": 0.1,
}


def ledger(trained: int, **withheld: int) -> dict[str, Any]:
    counts = dict.fromkeys(TERMS, 0) | {"trained": trained, "withheld": sum(withheld.values())}
    return counts | {
        "withheld_by_reason": withheld,
        "straggler_wait_s": 0.0,
        "probe_tokens": 0,
        "heldout_tokens": 0,
    }


def row(before: dict[str, Any], after: dict[str, Any], **learned: float | None) -> dict[str, Any]:
    nobody = WorkerTotals({})
    return step_row(7, 1, LEARNED | learned, before, after, nobody, nobody, [])


def test_of_a_group_withheld_as_unparsed_every_verdict_counts_as_unreadable() -> None:
    found = row(ledger(8, unparsed=2), ledger(12, unparsed=3, low_signal=5))
    assert found["unreadable_fraction"] == pytest.approx((1 + 4 * 0.1) / 5)
    assert row(ledger(8), ledger(12))["unreadable_fraction"] == pytest.approx(0.1)


def test_without_settled_groups_or_verdicts_the_share_is_unknown() -> None:
    assert row(ledger(8), ledger(8))["unreadable_fraction"] is None
    assert row(ledger(8), ledger(12), unparsed_fraction=None)["unreadable_fraction"] is None


def test_withheld_groups_without_signal_lower_the_reliability() -> None:
    assert row(ledger(0), ledger(4))["advantage_reliability"] == pytest.approx(0.75)
    half = row(ledger(0), ledger(4, low_signal=4))
    assert half["no_signal_fraction"] == 0.5
    assert half["advantage_reliability"] == pytest.approx(1 - 0.25 / 0.625)
    assert row(ledger(0), ledger(4), judge_noise_std=None)["advantage_reliability"] is None


@pytest.mark.parametrize(
    ("total", "column"), [("probe_tokens", "capability_tokens"), ("heldout_tokens", "evaluation_tokens")]
)
def test_tokens_beside_the_groups_are_those_of_the_step_also_of_a_ledger_that_has_begun_anew(
    total: str, column: str
) -> None:
    def of(before: int, after: int) -> Any:
        told = [ledger(trained=4) | {total: tokens} for tokens in (before, after)]
        return row(*told).get(column)

    assert [of(0, 0), of(100, 140), of(140, 140), of(900, 30)] == [None, 40, 0, 30]


def test_what_the_learner_measured_only_for_this_is_no_metric() -> None:
    assert "score_variance_within" not in row(ledger(0), ledger(4))


def totals(**judges: JudgeCost) -> dict[str, Any]:
    return asdict(replace(WORKER_STATS, judges=judges))


def judging(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, Any]:
    known = ledger(4)
    return step_row(7, 1, LEARNED, known, known, WorkerTotals(before), WorkerTotals(after), [])


def test_a_step_s_judging_is_what_all_workers_judges_gained() -> None:
    was = JudgeCost(questions=10, failed=1, prompt_tokens=100, completion_tokens=10, money=1.0)
    now = JudgeCost(questions=30, failed=6, prompt_tokens=500, completion_tokens=60, money=1.5)
    own = JudgeCost(questions=5, prompt_tokens=50, completion_tokens=5)
    found = judging({"a": totals(gpt=was)}, {"a": totals(gpt=now), "b": totals(self=own)})
    assert found["judge_tokens"] == 500 + 60 - 110 + 55
    assert found["judge_money"] == 0.5
    assert found["unreachable_fraction"] == pytest.approx(5 / 25)


def test_a_worker_that_has_left_takes_its_totals_with_it() -> None:
    gone = JudgeCost(questions=1_000, prompt_tokens=9_999)
    found = judging(
        {"old": totals(self=gone)}, {"new": totals(self=JudgeCost(questions=2, prompt_tokens=20))}
    )
    assert found["judge_tokens"] == 20


def test_what_nobody_asked_or_paid_for_is_unknown_and_not_zero() -> None:
    found = judging({"a": totals()}, {"a": totals()})
    assert (found["unreachable_fraction"], found["judge_money"]) == (None, None)
