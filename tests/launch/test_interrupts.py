"""Signals that end a command that asks models: its work is cancelled, so that what it opened is closed."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from dynalign.launch.interrupts import SIGNALS, kept_signals, on_signal, run_async


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def killed(number: signal.Signals, closed: list[str]) -> str:
    """Sends itself a signal, and waits as for an answer."""
    try:
        os.kill(os.getpid(), number)
        await asyncio.sleep(20)
        return "ended by itself"
    finally:
        closed.append("closed")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_work_and_what_it_opened_is_closed(number: signal.Signals) -> None:
    closed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_async(killed(number, closed))
    assert closed == ["closed"]


def test_without_a_signal_the_result_is_the_work_s() -> None:
    async def work() -> int:
        return 7

    assert run_async(work()) == 7


def test_under_nohup_a_command_outlives_its_terminal() -> None:
    async def hung_up() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.01)
        return "done"

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run_async(hung_up()) == "done"


def test_a_library_that_takes_a_signal_over_while_it_starts_gives_it_back() -> None:
    closed: list[str] = []

    async def work() -> str:
        with kept_signals():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        return await killed(signal.SIGTERM, closed)

    with pytest.raises(KeyboardInterrupt):
        run_async(work())
    assert closed == ["closed"]


def test_the_first_signal_may_mean_something_else() -> None:
    seen: list[str] = []

    async def work() -> str:
        stop = asyncio.Event()
        on_signal(stop.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)
        seen.append("stopped")
        return "ended by itself"

    assert run_async(work()) == "ended by itself"
    assert seen == ["stopped"]
