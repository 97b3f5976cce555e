"""The conservation law, the age bound and exactly-once as properties of random histories."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.rollout.ledger.values import LedgerSettings
from tests.worlds.ledger_hand import PROMPTS
from tests.worlds.ledger_prompts import ChangingWorld
from tests.worlds.ledger_world import World

seeds = st.integers(0, 2**32 - 1)
rules = st.builds(
    LedgerSettings,
    prompts_per_step=st.integers(1, 4),
    steps=st.integers(1, 12),
    max_staleness=st.sampled_from([0, 1, 2, 4]),
    max_refill=st.sampled_from([0.0, 0.5, 2.0]),
    lease_s=st.just(10.0),
    poison_attempts=st.integers(1, 4),
)
no_signal = st.sampled_from(["warn", "pause"])

COMMON = (
    ["advance"] * 8
    + ["lease"] * 8
    + ["finish"] * 10
    + ["report_again", "time_passes", "worker_dies", "worker_leaves", "lose_groups"]
)
WITHOUT_ACCIDENTS = [event for event in COMMON if event != "worker_dies"]
DEATHS = ["coordinator_dies", "ledger_dies", "driver_dies"]


def live(world: World, events: list[str], length: int) -> None:
    for _ in range(length):
        getattr(world, world.random.choice(events))()
        world.check()


@settings(max_examples=300, deadline=None)
@given(rules, seeds, no_signal, st.sampled_from([0.1, 0.6, 1.0]))
def test_stragglers_deaths_and_dull_groups_break_neither_the_law_nor_the_age_bound(
    rules: LedgerSettings, seed: int, on_no_signal: str, signal: float
) -> None:
    world = World(rules, seed, on_no_signal, signal)
    live(world, COMMON, 150)
    world.work_until_finished()
    world.check_history()


@settings(max_examples=500, deadline=None)
@given(rules, seeds, no_signal, st.sampled_from([0.6, 1.0]))
def test_every_group_is_trained_once_wherever_ledger_coordinator_and_driver_are_killed(
    rules: LedgerSettings, seed: int, on_no_signal: str, signal: float
) -> None:
    world = World(rules, seed, on_no_signal, signal)
    live(world, COMMON * 2 + DEATHS, 200)
    world.work_until_finished()
    world.check_history()


@settings(max_examples=300, deadline=None)
@given(rules, seeds, st.sampled_from([0.6, 1.0]), st.frozensets(st.integers(0, PROMPTS - 1), max_size=3))
def test_a_prompt_that_breaks_its_workers_is_withheld_and_never_one_that_was_beside_it(
    rules: LedgerSettings, seed: int, signal: float, poison: frozenset[int]
) -> None:
    """Ledger and driver die as well; every death of a worker is the doing of a prompt."""
    world = World(replace(rules, poison_attempts=max(2, rules.poison_attempts)), seed, "warn", signal, poison)
    live(world, WITHOUT_ACCIDENTS * 2 + DEATHS, 200)
    world.work_until_finished()
    world.check_history()
    assert world.condemned <= poison


@settings(max_examples=200, deadline=None)
@given(rules, seeds, st.frozensets(st.integers(0, PROMPTS - 1), max_size=3))
def test_poison_among_deaths_of_every_kind_breaks_neither_the_law_nor_the_age_bound(
    rules: LedgerSettings, seed: int, poison: frozenset[int]
) -> None:
    world = World(rules, seed, "warn", 1.0, poison)
    live(world, COMMON * 2 + DEATHS, 200)
    world.work_until_finished()
    world.check_history()


@settings(max_examples=150, deadline=None)
@given(rules, seeds, st.integers(0, 200), st.sampled_from([0.6, 1.0]))
def test_a_ledger_that_dies_again_and_again_is_restored_as_after_its_first_death(
    rules: LedgerSettings, seed: int, length: int, signal: float
) -> None:
    world = World(rules, seed, "warn", signal)
    live(world, COMMON * 2 + DEATHS, length)
    world.ledger_dies()
    once = world.ledger.state
    for compacting in (False, True):
        if compacting:
            world.compact()
        world.ledger_dies()
        assert world.ledger.state == once
    world.work_until_finished()
    world.check_history()


@settings(max_examples=25, deadline=None)
@given(rules, seeds, st.sampled_from([0.6, 1.0]), st.frozensets(st.integers(0, PROMPTS - 1), max_size=2))
def test_prompts_that_come_to_a_run_move_no_draw_before_them_wherever_it_is_killed(
    rules: LedgerSettings, seed: int, signal: float, poison: frozenset[int]
) -> None:
    """Every group has one prompt in all lineages, the log is compacted now and then, and no change is lost,
    whichever checkpoint the run goes back to."""
    world = ChangingWorld(rules, seed, "warn", signal, poison)
    live(world, COMMON + DEATHS + ["new_prompts", "new_prompts", "compact"], 120)
    world.work_until_finished()
    world.check_history()
