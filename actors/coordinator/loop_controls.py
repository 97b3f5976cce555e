"""Pause, resume and stop, as the loop reads them between two of its lines, and what it shows of itself."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from dynalign.configs.schema import RunSettings
from dynalign.run_folder.run_status import AlarmStatus, EndpointStatus

logger = logging.getLogger(__name__)
T = TypeVar("T")


def budget_reached(run: RunSettings, endpoints: Iterable[EndpointStatus]) -> str | None:
    """What ends the run where an endpoint's budget is reached, and what continues it; None where none is."""
    for each in endpoints:
        if each.budget_reached and each.name in run.judge.endpoints:
            settings = run.judge.endpoints[each.name]
            place = f"judge.endpoints.{each.name}"
            limits = {"budget_tokens": settings.budget_tokens, "budget_money": settings.budget_money}
            keys = " or ".join(f"{place}.{key}" for key, limit in limits.items() if limit is not None)
            return f"{place}: {each.budget_reached} ({keys})"
    return None


class StopRequested(Exception):
    """Ends a wait for a batch or an evaluation; never leaves the coordinator."""


@dataclass
class LoopProgress:
    """What the loop does now. Example: `LoopProgress("running", "learning step 4", "")`."""

    state: str
    """`starting`, `running`, `stopping`, `finished` or `interrupted`."""
    phase: str
    """What it works on or waits for; empty between two steps."""
    notice: str = ""
    """What a person should know; empty for nothing."""


class LoopControls:
    """A run that neither pauses nor stops, until it is asked to. `stopped_by`: the alarm that asked for the
    stop, and why, or the budget that is reached; None where a person did."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self.stopped_by: str | None = None

    @property
    def stopping(self) -> bool:
        """Whether the run ends after the current step."""
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        """Whether no further step begins for now."""
        return not self._running.is_set()

    def stop(self) -> None:
        """End after the current step."""
        self._stop.set()

    def stop_for(self, cause: str) -> None:
        """The same, with the cause, unless there is one already."""
        self.stopped_by = self.stopped_by or cause
        self.stop()

    def pause(self) -> None:
        """Pause after the current step."""
        self._running.clear()

    def resume(self) -> None:
        """Go on."""
        self._running.set()

    def obey(self, alarm: AlarmStatus, now: LoopProgress) -> None:
        """Pause or stop after the current step, as the alarm asks for, and say why. now: what is shown."""
        cause = f"alarm {alarm.name} (alarms.{alarm.name}.action={alarm.action}): {alarm.words}"
        logger.warning("%s", cause)
        if alarm.action == "stop":
            self.stop_for(cause)
        else:
            now.phase = f"paused by {cause}; then resume the run, or stop it"
            self.pause()

    async def until_running(self) -> None:
        """Returns at once unless the run is paused. Raises StopRequested when it is stopped meanwhile."""
        await self.or_stop(self._running.wait())

    async def or_stop(self, wanted: Awaitable[T]) -> T:
        """The wanted value, or StopRequested as soon as a stop is asked for."""
        task = asyncio.ensure_future(wanted)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise StopRequested
            return await task
        finally:
            stop.cancel()
            task.cancel()
