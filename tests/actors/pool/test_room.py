"""Turns in one engine: beside others, or alone."""

import asyncio
from collections.abc import Awaitable, Callable

from dynalign.actors.pool.room import Room


def within(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_reservation_waits_for_those_inside_and_holds_back_those_behind_it() -> None:
    async def work() -> None:
        room = Room(2)
        order: list[str] = []
        go = asyncio.Event()

        async def shared(name: str) -> None:
            async with room.shared():
                order.append(name)
                await go.wait()

        first = [asyncio.create_task(shared(name)) for name in ("a", "b", "c")]
        await settled()
        assert order == ["a", "b"]  # two places
        reserving = asyncio.create_task(room.reserve("t"))
        later = asyncio.create_task(shared("d"))
        await settled()
        assert not reserving.done()
        go.set()
        await reserving
        await asyncio.gather(*first)
        assert order == ["a", "b", "c"]
        async with room.alone("t") as is_alone:
            await settled()
            assert is_alone
            assert order == ["a", "b", "c"]
        await later
        assert order[-1] == "d"

    within(work)


def test_a_reservation_whose_caller_never_comes_lapses_and_is_told_to_one_that_comes_late() -> None:
    async def work() -> None:
        room = Room(1, claim_s=0.01)
        await room.reserve("gone")
        async with room.shared():
            pass
        async with room.alone("gone") as is_alone:
            assert not is_alone
        await room.reserve("again")
        async with room.alone("again") as is_alone:
            assert is_alone

    within(work)


def test_two_that_want_to_be_alone_take_turns_and_a_cancelled_one_takes_none() -> None:
    async def work() -> None:
        room = Room(4)
        await room.reserve("a")
        waiting = [asyncio.create_task(room.reserve(name)) for name in ("b", "c")]
        await settled()
        waiting[0].cancel()
        async with room.alone("a"):
            await settled()
            assert not waiting[1].done()
        await waiting[1]
        async with room.alone("c") as is_alone:
            assert is_alone

    within(work)
