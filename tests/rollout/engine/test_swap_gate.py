"""The gate between uses of an engine and swaps of its weights."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from dynalign.rollout.engine.swap_gate import SwapGate


def tell(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 5))


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_swap_waits_for_those_inside_and_later_ones_wait_for_the_swap() -> None:
    said: list[str] = []
    gate = SwapGate()

    async def use(name: str, leave: asyncio.Event) -> None:
        async with gate.passing():
            said.append(f"{name} begins")
            await leave.wait()
            said.append(f"{name} ends")

    async def swap() -> None:
        async with gate.swapping():
            said.append("swap")

    async def story() -> None:
        leave = asyncio.Event()
        first = asyncio.create_task(use("first", leave))
        await until_all_wait()
        later = [asyncio.create_task(each) for each in (swap(), use("second", leave))]
        await until_all_wait()
        leave.set()
        await asyncio.gather(first, *later)

    tell(story())
    assert said == ["first begins", "first ends", "swap", "second begins", "second ends"]


@pytest.mark.parametrize("waits_for", ["those inside", "another swap"])
def test_a_swap_that_is_cancelled_while_it_waits_leaves_the_gate_open(waits_for: str) -> None:
    gate = SwapGate()

    async def story() -> None:
        async with gate.passing() if waits_for == "those inside" else gate.swapping():
            swapping = asyncio.create_task(gate.swapping().__aenter__())
            await until_all_wait()
            swapping.cancel()
            await asyncio.wait([swapping])
        async with gate.passing():
            pass
        async with gate.swapping():
            pass

    tell(story())


def test_one_that_is_cancelled_inside_lets_the_swap_begin() -> None:
    gate = SwapGate()

    async def story() -> None:
        async def use() -> None:
            async with gate.passing():
                await asyncio.Event().wait()

        using = asyncio.create_task(use())
        await until_all_wait()
        swapping = asyncio.create_task(gate.swapping().__aenter__())
        await until_all_wait()
        assert not swapping.done()
        using.cancel()
        await swapping

    tell(story())
