"""Signals that ask a command to end. A run counts them, so that they break no line that is running; a command
that asks models is cancelled by them, so that its engines end and its answers are kept."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that closes. All three mean the same: end with a checkpoint."""


class Interrupts:
    """Counts signals from its creation to `restore`. `first_s`: when the first one came (seconds,
    monotonic)."""

    def __init__(self) -> None:
        self.count = 0
        self.first_s: float | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.listen()

    def listen(self) -> None:
        """Takes the signals over. Again after `ray.init`, which has SIGTERM end the process within seconds.

        A signal that is ignored stays so: a command under `nohup` outlives its terminal.
        """
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before.setdefault(number, signal.signal(number, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.first_s = time.monotonic() if self.first_s is None else self.first_s

    def restore(self) -> None:
        """Leaves the signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, where every one of `SIGNALS` ends the work as Ctrl-C does. Raises KeyboardInterrupt."""

    async def cancelled_by_signals() -> T:
        on_signal(cancel_of_this_task())
        return await work

    try:
        return asyncio.run(cancelled_by_signals())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def cancel_of_this_task() -> Callable[[], object]:
    """What cancels the task that asks for it."""
    task = asyncio.current_task()
    assert task is not None, "there is no task outside an event loop"
    return task.cancel


def on_signal(act: Callable[[], object]) -> None:
    """Has the running event loop call `act` when a signal comes; one that is ignored stays so. Outside the
    main thread, which alone gets signals, nothing is changed."""
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, act)


@contextmanager
def kept_signals() -> Iterator[None]:
    """Gives the signals back to whoever had them before: `ray.init` takes SIGTERM over."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
