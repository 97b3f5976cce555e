"""Deaths within a sliding window, and the wait before the next replacement."""

from dynalign.actors.supervision.restart_budget import LONGEST_DELAY_S, RestartBudget


def test_the_first_replacement_comes_at_once_and_the_next_ones_after_doubling_waits() -> None:
    budget = RestartBudget(5, 60.0)
    assert [budget.spend("rollout-0", 0.0) for _ in range(5)] == [0.0, 1.0, 2.0, 4.0, 8.0]


def test_one_death_more_than_the_budget_has_no_replacement() -> None:
    budget = RestartBudget(2, 60.0)
    assert [budget.spend("ledger", now_s) for now_s in (0.0, 1.0, 2.0)] == [0.0, 1.0, None]


def test_deaths_that_are_older_than_the_window_do_not_count() -> None:
    budget = RestartBudget(2, 60.0)
    assert [budget.spend("ledger", now_s) for now_s in (0.0, 1.0, 60.0, 61.0)] == [0.0, 1.0, 1.0, 1.0]


def test_each_key_has_a_budget_of_its_own() -> None:
    budget = RestartBudget(1, 60.0)
    assert [budget.spend(key, 0.0) for key in ("rollout-0", "rollout-1", "learner")] == [0.0, 0.0, 0.0]


def test_a_budget_of_none_replaces_nothing_and_no_wait_is_longer_than_half_a_minute() -> None:
    assert RestartBudget(0, 60.0).spend("ledger", 0.0) is None
    budget = RestartBudget(20, 60.0)
    waits_s = [wait_s for _ in range(20) if (wait_s := budget.spend("ledger", 0.0)) is not None]
    assert max(waits_s) == LONGEST_DELAY_S
