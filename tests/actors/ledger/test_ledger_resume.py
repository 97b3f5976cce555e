"""After a resume or a rollback: no burst of leases, and nothing that the abandoned lineage still sends is
taken."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.configs.errors import StaleLineage
from dynalign.rollout.ledger.age_bound import first_unmeetable
from dynalign.rollout.ledger.log import committed, read
from dynalign.rollout.ledger.values import Lease, LedgerSettings
from tests.rollout.ledger.test_history import COMMON, DEATHS, live, rules, seeds
from tests.worlds.ledger_actor_world import LedgerFolder, leases_of, report, tell, version
from tests.worlds.ledger_hand import scored_group
from tests.worlds.ledger_world import World


def admitted_at_once(world: World) -> list[Lease]:
    """What a crowd of new workers gets."""
    return [
        lease for number in range(50) for lease in world.ledger.leases.lease(f"new-{number}", 1, world.now_s)
    ]


def not_yet_there(world: World) -> int:
    """The groups that the age bound and the rest of the run leave room for, beside those that are scored
    already."""
    rule, state = world.settings, world.ledger.state
    room = min(
        (rule.max_staleness + 1) * rule.prompts_per_step, (rule.steps - state.version) * rule.prompts_per_step
    )
    return max(0, room - len(state.scored))


def oldest_at_its_step(world: World) -> int:
    """Ages when all that is outstanding is trained in the order of birth, P groups per step; the largest of
    them, in versions."""
    state, per_step = world.ledger.state, world.settings.prompts_per_step
    born = sorted(
        [lease.version for lease in state.leased.values()]
        + [scored.leased_at_version for scored in state.scored.values()]
    )
    return max((state.version + place // per_step - version for place, version in enumerate(born)), default=0)


@settings(max_examples=200, deadline=None)
@given(rules, seeds, st.sampled_from(["driver_dies", "ledger_dies"]), st.integers(0, 200))
def test_a_restored_ledger_admits_what_the_age_bound_allows_and_no_more_whatever_was_scored_and_pending(
    rules: LedgerSettings, seed: int, death: str, length: int
) -> None:
    world = World(rules, seed, "warn", 1.0)
    live(world, COMMON + DEATHS, length)
    dies: Callable[[], None] = getattr(world, death)
    dies()
    waiting, room = list(world.ledger.state.pending), not_yet_there(world)
    leases = admitted_at_once(world)
    assert len(leases) == room
    assert (
        sorted(lease.group_id for lease in leases)[: len(waiting)] == waiting[:room]
    )  # the oldest first, then new draws
    assert {(lease.lineage, lease.version) for lease in leases} <= {
        (world.lineage, world.ledger.state.version)
    }
    assert oldest_at_its_step(world) <= rules.max_staleness


@settings(max_examples=100, deadline=None)
@given(rules, seeds, st.integers(20, 200), st.integers(0, 3))
def test_a_resume_with_a_smaller_staleness_keeps_what_can_still_be_trained_in_time_and_admits_the_rest_anew(
    rules: LedgerSettings, seed: int, length: int, staleness: int
) -> None:
    world = World(rules, seed, "warn", 1.0)
    live(world, COMMON, length)
    world.settings = replace(rules, max_staleness=min(staleness, rules.max_staleness))
    world.driver_dies()
    room = not_yet_there(world)
    assert len(admitted_at_once(world)) == room
    assert oldest_at_its_step(world) <= world.settings.max_staleness
    dues = [
        scored.leased_at_version + world.settings.max_staleness
        for scored in world.ledger.state.scored.values()
    ]
    assert first_unmeetable(Counter(dues), world.ledger.state.version, rules.prompts_per_step) is None


@settings(max_examples=200, deadline=None)
@given(rules, seeds, st.integers(0, 150))
def test_a_rollback_refuses_every_lease_and_report_of_the_abandoned_lineage(
    rules: LedgerSettings, seed: int, length: int
) -> None:
    world = World(rules, seed, "warn", 1.0)
    live(world, COMMON, length)
    abandoned = list(world.ledger.state.leased.values())
    world.driver_dies()
    admitted_at_once(world)  # the same groups are leased again, many with the same attempt number
    before = world.ledger.counts()
    for lease in abandoned:
        assert world.ledger.leases.renew(lease.worker, [lease.key], world.now_s) == [lease.key]
        assert world.ledger.report(scored_group(lease, lease.version, lease.version)) == "late"
        assert world.ledger.withhold(lease.key, "refused") == "late"
    assert world.ledger.counts() == replace(before, late=before.late + 2 * len(abandoned))


def test_an_actor_in_a_new_lineage_takes_nothing_of_the_abandoned_one_and_issues_its_groups_again(
    tmp_path: Path,
) -> None:
    async def story(place: LedgerFolder) -> None:
        first = await place.ledger()
        await place.train(first, 1)
        await place.checkpoint(first, 1)
        await place.forget(first, 1)
        held = await leases_of(first, 2, "slow")  # groups 2 and 3
        await place.train(first, 2)  # groups 4 and 5, after the checkpoint

        place.owner.new_lineage(now_s=2.0)
        second = await place.ledger(step=1)
        status = await second.status()
        assert (status.committed_step, status.trained, status.rolled_back) == (1, 2, 2)
        assert await second.renew("slow", [lease.key for lease in held]) == [lease.key for lease in held]
        assert await report(second, place.scored(held[0]), "handle", "slow") == "late"
        assert await second.withhold("slow", held[1].key, "refused") == "late"
        assert await second.wait_version("a", (1, 2), wait_s=0.0) == version(
            1, lineage=2
        )  # above all of the abandoned ones

        leases = await leases_of(second, 99)
        assert [(lease.group_id, lease.lineage, lease.version) for lease in leases] == [
            (group, 2, 1) for group in (2, 3, 4, 5)
        ]
        assert (
            await leases_of(second, 99, "worker-1") == []
        )  # four are all that two per step and one version of staleness allow
        for lease in leases[:2]:
            assert await report(second, place.scored(lease)) == "scored"
        await second.take(2, deadline_s=0.0)
        with pytest.raises(StaleLineage):  # the actor of the abandoned lineage still lives
            await first.commit(3, version(3))
        await second.commit(2, version(2, lineage=2))
        history = committed(read(place.folder / "ledger.log"))
        assert [(line.lineage, line.group_ids) for line in history] == [(1, (0, 1)), (2, (2, 3))]

    tell(tmp_path, story)
