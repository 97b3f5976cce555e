"""An event loop whose time passes at once: where every task waits, its clock jumps to the next one due.

Simulated: time. Sockets and threads do not work in it.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Advances the clock by the time that it is asked to wait."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits for something that never comes"
        self.now_s += timeout
        return super().select(0)


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """The result of `main`. Inside, `asyncio.get_running_loop().time` is the clock, in seconds from 0."""
    selector = _Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
