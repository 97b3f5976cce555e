"""The conservation law, the age bound and exactly-once as properties of random histories."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.ledger_values import LedgerSettings
from tests.ledger_world import World

seeds = st.integers(0, 2**32 - 1)
rules = st.builds(
    LedgerSettings,
    prompts_per_step=st.integers(1, 4),
    steps=st.integers(1, 12),
    max_staleness=st.sampled_from([0, 1, 2, 4]),
    max_in_flight=st.integers(1, 12),
    max_refill=st.sampled_from([0.0, 0.5, 2.0]),
    lease_s=st.just(10.0),
    max_attempts=st.integers(1, 4),
)
no_signal = st.sampled_from(["warn", "pause"])

COMMON = ["advance"] * 8 + ["lease"] * 8 + ["finish"] * 10 + ["report_again", "time_passes", "worker_dies", "lose_groups"]
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
