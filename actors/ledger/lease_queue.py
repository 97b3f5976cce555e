"""Workers that wait for a lease, in the order of their arrival. A thousand workers need it; ten would not.

    lease ──there is one, nobody waits──► at once
      └──waits ──► served by `change`, or returns without leases when its time is up

A change wakes only the workers that get something. To wake a thousand for every scored group would cost more
than the group itself. Waiting workers are served in rounds: where leases become free one by one, a worker
with many free slots would otherwise make one call for each of them.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from dynalign.configs.errors import DynalignError
from dynalign.rollout.ledger.kinds import AnyLease

ROUNDS_APART_S = 0.02
"""Least seconds from one round in which a worker was served to the next."""


class _Waiting(NamedTuple):
    worker: str
    max_groups: int
    holds_other_leases: bool
    leases: "asyncio.Future[list[AnyLease]]"


class LeaseQueue:
    """The queue of one ledger.

    give: (worker, max_groups, holds_other_leases) to leases; empty if there is nothing for this worker, None
    if there is nothing for any. look: called every `look_s` seconds while anybody waits, because leases can
    become free by time alone. A DynalignError from it is raised in every waiting call.
    """

    def __init__(
        self,
        give: Callable[[str, int, bool], list[AnyLease] | None],
        look: Callable[[], object],
        look_s: float,
    ) -> None:
        self._give = give
        self._look = look
        self._look_s = look_s
        self._waiting: dict[int, _Waiting] = {}
        self._arrivals = 0
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.TimerHandle | None = None
        self._served_s = -ROUNDS_APART_S

    async def lease(
        self, worker: str, max_groups: int, wait_s: float, holds_other_leases: bool
    ) -> list[AnyLease]:
        """Up to `max_groups` leases.

        Empty when there is none for `wait_s` seconds; with wait_s = 0 also when others wait.
        """
        others_wait = bool(self._waiting)
        leases = None if others_wait else self._give(worker, max_groups, holds_other_leases)
        if leases or wait_s <= 0.0:
            return leases or []
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        number = self._arrivals
        waiting = _Waiting(worker, max_groups, holds_other_leases, loop.create_future())
        self._waiting[number] = waiting
        self._watch(loop)
        if others_wait:
            self.change()  # this worker may be allowed what the others are not
        try:
            await asyncio.wait([waiting.leases], timeout=wait_s)
        finally:
            self._waiting.pop(number, None)
        return waiting.leases.result() if waiting.leases.done() else []

    def change(self) -> None:
        """There may be leases: those who wait are served now, or with the next round."""
        if self._waiting and self._round is None:
            loop = asyncio.get_running_loop()
            early_s = self._served_s + ROUNDS_APART_S - loop.time()
            if early_s <= 0.0:
                self._serve(loop)
            else:
                self._round = loop.call_later(early_s, self._next_round, loop)

    def leave(self, worker: str) -> None:
        """The worker is gone: its waiting calls return without leases."""
        for number in [number for number, waiting in self._waiting.items() if waiting.worker == worker]:
            self._waiting.pop(number).leases.set_result([])

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._round = None
        self._or_all_fail(lambda: self._serve(loop))

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives what there is to those who wait, the first one first."""
        served: list[int] = []
        for number, waiting in self._waiting.items():
            leases = self._give(waiting.worker, waiting.max_groups, waiting.holds_other_leases)
            if leases is None:
                break
            if leases:
                waiting.leases.set_result(leases)
                served.append(number)
        for number in served:
            del self._waiting[number]
            self._served_s = loop.time()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(self._look_s, self._time_passes, loop)

    def _time_passes(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._or_all_fail(self._look)
        if self._waiting:
            self._watch(loop)

    def _or_all_fail(self, act: Callable[[], object]) -> None:
        try:
            act()
        except DynalignError as error:
            for waiting in self._waiting.values():
                waiting.leases.set_exception(error)
            self._waiting.clear()
