"""What holds of a ledger after every event: conservation, the age bound, and counters that agree with what
they count."""

from collections import Counter
from typing import TYPE_CHECKING

from dynalign.rollout.ledger.age_bound import first_unmeetable

if TYPE_CHECKING:
    from tests.worlds.ledger_world import World


def check(world: "World") -> None:
    """Raises AssertionError where the ledger of `world` breaks one of its invariants."""
    state = world.ledger.state
    settings = world.settings
    states = [set(state.pending), set(state.leased), set(state.scored), set(state.withheld)]
    assert sum(map(len, states)) == len(set().union(*states))
    assert all(0 <= group_id < state.issued for group_ids in states for group_id in group_ids)
    assert len(state.leased) + len(state.scored) <= (settings.max_staleness + 1) * settings.prompts_per_step
    reserved = set(world.ledger.reservation.group_ids) if world.ledger.reservation else set()
    leased_at = {i: lease.version for i, lease in state.leased.items()} | {
        i: scored.leased_at_version for i, scored in state.scored.items()
    }
    dues = [version + settings.max_staleness for i, version in leased_at.items() if i not in reserved]
    for groups in (0, settings.prompts_per_step):
        leaving = {scored.group.group_id for scored in state.earliest(groups)}
        left = Counter(
            version + settings.max_staleness for i, version in leased_at.items() if i not in leaving
        )
        assert +Counter(state.left_behind(groups, settings.max_staleness)) == left
    assert state.withheld_by_reason() == Counter(state.withheld.values())
    for worker in [*world.held, "nobody"]:
        assert world.ledger.leases.of_worker(worker) == [
            lease for lease in state.leased.values() if lease.worker == worker
        ]
    assert first_unmeetable(Counter(dues), state.version + bool(reserved), settings.prompts_per_step) is None
    assert (
        state.issued - sum(map(len, states)) == sum(map(len, world.learner[: state.version])) == state.trained
    )
