"""How many workers a run wants: hand-worked histories of (learner waits, workers idle)."""

from dynalign.actors.coordinator.pool_size import PATIENCE, Decision, PoolSize


def after(pool: PoolSize, workers: int, wait: float, idle: float, steps: int) -> Decision:
    for _ in range(steps):
        decision = pool.decide(workers, wait, idle)
    return decision


def test_a_fixed_size_is_never_changed() -> None:
    assert after(PoolSize(2, 2), 2, 0.9, 0.0, 10).wanted == 2


def test_a_starving_learner_gets_one_more_worker_after_three_steps_and_not_before() -> None:
    pool = PoolSize(1, 8)
    assert after(pool, 2, 0.4, 0.0, PATIENCE - 1).wanted == 2
    decision = pool.decide(2, 0.4, 0.0)
    assert decision.wanted == 3
    assert decision.reason == "the learner starves: learner waited 40%, workers idled 0% of the step"


def test_idle_workers_leave_one_by_one_down_to_the_least() -> None:
    pool = PoolSize(2, 8)
    assert after(pool, 3, 0.0, 0.5, PATIENCE).wanted == 2
    assert after(pool, 2, 0.0, 0.5, PATIENCE).wanted == 2
    assert "at its bound" in pool.decide(2, 0.0, 0.5).reason


def test_a_large_pool_changes_by_a_quarter() -> None:
    assert after(PoolSize(1, 100), 40, 0.5, 0.0, PATIENCE).wanted == 50
    assert after(PoolSize(1, 45), 40, 0.5, 0.0, PATIENCE).wanted == 45


def test_one_odd_step_or_figures_between_the_thresholds_change_nothing() -> None:
    pool = PoolSize(1, 8)
    after(pool, 2, 0.4, 0.0, PATIENCE - 1)
    assert pool.decide(2, 0.1, 0.2).wanted == 2
    assert after(pool, 2, 0.4, 0.0, PATIENCE - 1).wanted == 2
    assert after(PoolSize(1, 8), 2, 0.10, 0.20, 20).wanted == 2


def test_a_learner_that_waits_while_workers_idle_waits_for_something_else() -> None:
    assert after(PoolSize(1, 8), 2, 0.5, 0.5, 20).wanted == 2


def test_after_a_change_three_new_steps_are_watched() -> None:
    pool = PoolSize(1, 8)
    assert after(pool, 2, 0.4, 0.0, PATIENCE).wanted == 3
    assert after(pool, 3, 0.4, 0.0, PATIENCE - 1).wanted == 3
    assert pool.decide(3, 0.4, 0.0).wanted == 4
