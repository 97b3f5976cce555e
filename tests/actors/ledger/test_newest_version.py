"""Who waits for a weight version is told of it, one after the other."""

import asyncio
import time

import pytest

from dynalign.actors.ledger.newest_version import APART_S, LONGEST_S, NewestVersion
from dynalign.rollout.weights.version import WeightVersion


def version(lineage: int, step: int) -> WeightVersion:
    return WeightVersion(lineage, step, b"", (), 0)


def test_what_is_there_already_is_told_at_once() -> None:
    newest = NewestVersion()
    newest.publish(version(1, 3))
    assert asyncio.run(newest.wait("a", (1, 2), 0.0)) == version(1, 3)


def test_nothing_newer_within_the_time_is_none() -> None:
    newest = NewestVersion()
    newest.publish(version(1, 3))
    assert asyncio.run(newest.wait("a", (1, 3), 0.01)) is None


@pytest.mark.parametrize(("after", "told"), [((1, 9), True), ((2, 3), False), ((2, 2), True)])
def test_a_newer_lineage_is_above_all_of_an_older_one(after: tuple[int, int], told: bool) -> None:
    newest = NewestVersion()
    newest.publish(version(2, 3))
    assert (newest.above(after) is not None) is told


def test_all_who_wait_are_told_in_their_order_and_apart() -> None:
    async def scene() -> list[tuple[int, float]]:
        newest, told = NewestVersion(), list[tuple[int, float]]()

        async def waiter(number: int) -> None:
            assert await newest.wait(str(number), (1, 0), 10.0) == version(1, 1)
            told.append((number, time.monotonic()))

        tasks = [asyncio.create_task(waiter(number)) for number in range(20)]
        await asyncio.sleep(0.01)
        newest.publish(version(1, 1))
        await asyncio.gather(*tasks)
        return told

    told = asyncio.run(scene())
    assert [number for number, _ in told] == list(range(20))
    assert told[-1][1] - told[0][1] >= 18 * APART_S


def test_however_many_wait_the_last_is_told_soon() -> None:
    async def scene() -> float:
        newest = NewestVersion()
        tasks = [asyncio.create_task(newest.wait(str(number), (1, 0), 10.0)) for number in range(1000)]
        await asyncio.sleep(0.1)
        newest.publish(version(1, 1))
        published_s = time.monotonic()
        await asyncio.gather(*tasks)
        return time.monotonic() - published_s

    assert 0.5 * LONGEST_S < asyncio.run(scene()) < 10 * LONGEST_S


def test_the_end_of_the_wait_before_ones_turn_tells_the_version_too() -> None:
    async def scene() -> list[WeightVersion | None]:
        newest = NewestVersion()
        tasks = [
            asyncio.create_task(newest.wait(str(number), (1, 0), 0.05)) for number in range(50)
        ]  # the last one's turn is at 0.5 s
        await asyncio.sleep(0.01)
        newest.publish(version(1, 1))
        return await asyncio.gather(*tasks)

    assert set(asyncio.run(scene())) == {version(1, 1)}


def test_who_was_told_with_a_report_waits_on_for_the_next_version_and_keeps_nobody_back() -> None:
    async def scene() -> None:
        newest = NewestVersion()
        waiting = asyncio.create_task(newest.wait("a", (1, 0), 10.0))
        other = asyncio.create_task(newest.wait("b", (1, 0), 10.0))
        await asyncio.sleep(0)
        newest.publish(version(1, 1))
        assert newest.tell("a", (1, 0)) == version(1, 1)
        assert newest.tell("a", (1, 1)) is None
        assert await other == version(1, 1)
        await asyncio.sleep(5 * APART_S)
        assert not waiting.done()
        newest.publish(version(1, 2))
        assert await waiting == version(1, 2)

    asyncio.run(scene())


def test_an_answer_that_was_lost_is_made_good_by_the_next_wait() -> None:
    newest = NewestVersion()
    newest.publish(version(1, 1))
    newest.tell("a", (1, 0))
    assert asyncio.run(newest.wait("a", (1, 0), 10.0)) == version(1, 1)


def test_who_was_told_meanwhile_hears_nothing_at_the_end_of_the_wait() -> None:
    async def scene() -> None:
        newest = NewestVersion()
        waiting = asyncio.create_task(newest.wait("a", (1, 0), 0.05))
        await asyncio.sleep(0)
        newest.publish(version(1, 1))
        newest.tell("a", (1, 0))
        assert await waiting is None

    asyncio.run(scene())
