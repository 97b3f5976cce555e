"""Workers at the ledger's door: served in the order of their arrival, and nobody wakes for nothing."""

import asyncio
from typing import cast

import pytest

from dynalign.actors.ledger.lease_queue import ROUNDS_APART_S, LeaseQueue
from dynalign.configs.errors import LedgerError
from dynalign.rollout.ledger.kinds import AnyLease

LOOK_S = 0.05


class Store:
    """So many leases are there; `asked` says for whom they were wanted.

    None of them is for those in `barred`.
    """

    def __init__(self) -> None:
        self.left, self.asked, self.barred, self.broken = 0, list[str](), set[str](), False

    def give(self, worker: str, max_groups: int, holds_other_leases: bool) -> list[AnyLease] | None:
        self.asked.append(worker)
        if not self.left:
            return None
        given = 0 if worker in self.barred else min(self.left, max_groups)
        self.left -= given
        return cast(list[AnyLease], [worker] * given)

    def look(self) -> None:
        if self.broken:
            raise LedgerError("the law is broken")


async def waiting(
    queue: LeaseQueue, *workers: str, wait_s: float = 5.0
) -> list["asyncio.Task[list[AnyLease]]"]:
    calls = [
        asyncio.create_task(queue.lease(worker, 2, wait_s, holds_other_leases=False)) for worker in workers
    ]
    await asyncio.sleep(0)
    return calls


def test_a_change_wakes_only_those_for_whom_there_is_something() -> None:
    async def story() -> None:
        store = Store()
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        names = [f"worker-{number}" for number in range(100)]
        calls = await waiting(queue, *names)
        store.asked.clear()
        store.left = 3
        queue.change()
        assert store.asked == names[:3]  # the third is told that nothing is left
        assert await asyncio.gather(*calls[:2]) == [["worker-0"] * 2, ["worker-1"]]
        assert not any(call.done() for call in calls[2:])
        store.left = 1
        queue.change()
        assert await calls[2] == ["worker-2"]
        queue.leave("worker-3")
        assert await calls[3] == []
        store.left = 2
        queue.change()
        assert await calls[4] == ["worker-4"] * 2
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        store.left = 5
        queue.change()
        assert store.left == 5  # a call that was given up takes nothing

    asyncio.run(story())


def test_one_that_may_have_nothing_holds_nobody_up_and_leaves_empty_handed_in_time() -> None:
    async def story() -> None:
        store = Store()
        store.barred = {"barred"}
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        barred, free = await waiting(queue, "barred", "free", wait_s=0.2)
        store.left = 2
        queue.change()
        assert (await free, await barred) == (["free"] * 2, [])

    asyncio.run(story())


def test_an_error_in_the_passing_of_time_ends_all_that_wait() -> None:
    async def story() -> None:
        store = Store()
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        calls = await waiting(queue, "one", "two")
        await asyncio.sleep(3 * LOOK_S)
        assert not any(call.done() for call in calls)
        store.broken = True
        for call in calls:
            with pytest.raises(LedgerError, match="law"):
                await call

    asyncio.run(story())


def test_leases_that_come_free_one_by_one_are_given_together_in_the_next_round() -> None:
    async def story() -> None:
        store = Store()
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        first, second, third = await waiting(queue, "first", "second", "third")
        began_s = asyncio.get_running_loop().time()
        for _ in range(5):
            store.left += 1
            queue.change()
            await asyncio.sleep(0)
        assert [call.done() for call in (first, second)] == [True, False]
        assert await asyncio.gather(first, second, third) == [["first"], ["second"] * 2, ["third"] * 2]
        assert asyncio.get_running_loop().time() - began_s >= ROUNDS_APART_S

    asyncio.run(story())


def test_who_would_not_wait_takes_nothing_from_those_who_do() -> None:
    async def story() -> None:
        store = Store()
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        (first,) = await waiting(queue, "first")
        store.left = 3
        assert await queue.lease("passing", 2, 0.0, holds_other_leases=False) == []
        assert await queue.lease("second", 2, 1.0, holds_other_leases=False) == ["second"]
        assert await first == ["first"] * 2

    asyncio.run(story())


def test_who_waits_behind_one_that_may_have_nothing_is_served_when_it_comes() -> None:
    async def story() -> None:
        store = Store()
        store.barred, store.left = {"barred"}, 2
        queue = LeaseQueue(store.give, store.look, LOOK_S)
        (barred,) = await waiting(queue, "barred", wait_s=0.2)
        assert await queue.lease("free", 2, 5.0, holds_other_leases=False) == ["free"] * 2
        assert await barred == []

    asyncio.run(story())
