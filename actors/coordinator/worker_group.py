"""The serving workers, as the coordinator calls them: all at once, and none that hangs holds up a step."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import Any

from ray.exceptions import RayError

from dynalign.actors.coordinator.step_row import WorkerTotals
from dynalign.actors.supervision.deaths import death
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.errors import DeadlineExceeded, DynalignError, one_line

logger = logging.getLogger(__name__)

_ANSWER_S = 20.0
"""Longest wait for answers. An engine that loads weights or prefills answers between two of its steps; a
worker that is later than that is left out of a row."""

_RETRY_S = 1.0
"""Seconds until a worker that could not go to sleep, or wake up, is asked again."""


class _Member:
    """A serving worker, and whether it has given the device to the learner (shared placement)."""

    def __init__(self, actor: RolloutWorkerHandle) -> None:
        self.actor = actor
        self.asleep = False
        self.changing: asyncio.Task[None] | None = None


class WorkerGroup:
    """answer_s, retry_s: seconds, as above."""

    def __init__(self, answer_s: float = _ANSWER_S, retry_s: float = _RETRY_S) -> None:
        self._answer_s = answer_s
        self._retry_s = retry_s
        self._members: dict[str, _Member] = {}
        self._gone: set[str] = set()
        self._asleep = False
        self._changed = asyncio.Event()
        self._silent: set[str] = set()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, name: str, actor: RolloutWorkerHandle) -> None:
        """A worker that is ready to serve. It sleeps if the others do, and wakes with them.

        Nothing happens for one that was removed: Ray may hand two calls over in either order, and a worker's
        successor has another name."""
        if name in self._gone:
            return
        self._members[name] = _Member(actor)
        self._follow()

    def remove(self, name: str) -> None:
        """A worker that drains, has left, or has died."""
        self._gone.add(name)
        member = self._members.pop(name, None)
        if member is not None and member.changing is not None:
            member.changing.cancel()
        self._changed.set()

    def stop(self) -> None:
        """No more leases. Nobody waits for the answers: a worker that has just died ends no run."""
        for member in self._members.values():
            member.actor.stop.remote()

    async def stats(self) -> WorkerTotals:
        """The figures of every worker that answers in time. One that did not is left out the next time: a
        step must not wait for a worker that hangs, which is the supervision's business."""
        asked = {name: member for name, member in self._members.items() if name not in self._silent}
        answers = await self._answers({name: member.actor.stats.remote() for name, member in asked.items()})
        self._silent = self._members.keys() - answers.keys()
        return WorkerTotals({name: asdict(stats) for name, stats in answers.items()})

    async def sleep(self, deadline_s: float) -> None:
        """Shared placement: returns once no worker holds the device.

        A worker that cannot go to sleep holds it until the supervision has replaced it, and its successor
        sleeps too. Raises DeadlineExceeded where one still holds it after `deadline_s` seconds.
        """
        self._asleep = True
        try:
            async with asyncio.timeout(deadline_s):
                while awake := self._not_following():
                    await self._next_change()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{', '.join(awake)} to give the device up", deadline_s) from error

    async def wake(self) -> None:
        """Shared placement: the device is the workers' again. One that does not wake up in time is asked
        again, and holds up nobody."""
        self._asleep = False
        try:
            async with asyncio.timeout(self._answer_s):
                while self._not_following():
                    await self._next_change()
        except TimeoutError:
            logger.warning("these workers do not wake up yet: %s", ", ".join(self._not_following()))

    def _not_following(self) -> list[str]:
        return [name for name, member in self._members.items() if member.asleep != self._asleep]

    async def _next_change(self) -> None:
        self._changed.clear()
        self._follow()
        await self._changed.wait()

    def _follow(self) -> None:
        """One task for each worker that is awake and should sleep, or the other way round."""
        for name in self._not_following():
            member = self._members[name]
            if member.changing is None or member.changing.done():
                member.changing = asyncio.ensure_future(self._change(name, member))

    async def _change(self, name: str, member: _Member) -> None:
        while member.asleep != self._asleep:
            asleep = self._asleep
            try:
                await (member.actor.sleep if asleep else member.actor.wake).remote()
            except (RayError, DynalignError) as error:
                logger.warning("%s does not %s: %s", name, "sleep" if asleep else "wake", one_line(error))
                await asyncio.sleep(self._retry_s)
            else:
                member.asleep = asleep
                self._changed.set()

    async def _answers(self, asked: Mapping[str, Awaitable[Any]]) -> dict[str, Any]:
        """The answer of every worker that gives one in time; one that is gone is the supervision's
        business."""
        calls = {name: asyncio.ensure_future(call) for name, call in asked.items()}
        if calls:
            await asyncio.wait(calls.values(), timeout=self._answer_s)
        answers = {}
        for name, call in calls.items():
            if not call.done():
                call.cancel()
                continue
            error = call.exception()
            if error is None:
                answers[name] = call.result()
            elif death(error) is None:
                raise error
        return answers
