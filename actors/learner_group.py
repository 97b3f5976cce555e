"""All learner ranks as one: every call goes to all of them at once, and has a deadline."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from configs.errors import DeadlineExceeded, MissingGroups
from configs.operation import DeadlineSettings
from rollout.ledger_values import ScoredGroup
from rollout.weight_version import WeightVersion

Report = dict[str, float | int | None]


class LearnerGroup:
    """The ranks' handles, rank 0 first."""

    def __init__(self, ranks: Sequence[Any], deadlines: DeadlineSettings) -> None:
        self._ranks, self._deadlines = tuple(ranks), deadlines

    async def start(self) -> None:
        """All ranks meet at rank 0's address and load the initial policy."""
        (address, port) = (await self._all("the learner's rendezvous", self._deadlines.start_s, "rendezvous"))[0]
        await self._all("all learner ranks to start", self._deadlines.start_s, "start", address, port)

    async def step(self, step: int, groups: Sequence[ScoredGroup], handles: Sequence[Any], present_fraction: float) -> Report:
        """One GRPO step in two phases; asked twice for a step, it answers once.

        Raises MissingGroups, before any rank has entered a collective, with the groups that some rank could not read.
        """
        prepared = await self._gather(
            f"the learner to prepare step {step}",
            self._deadlines.step_s,
            [rank.prepare.remote(step, groups, handles, present_fraction) for rank in self._ranks],
            return_exceptions=True,
        )
        errors = [error for error in prepared if isinstance(error, BaseException)]
        missing = {group_id for error in errors if isinstance(error, MissingGroups) for group_id in error.group_ids}
        for error in errors:
            if not isinstance(error, MissingGroups):
                raise error
        if missing:
            raise MissingGroups(tuple(sorted(missing)))
        return (await self._all(f"learner step {step}", self._deadlines.step_s, "run", step))[0]  # type: ignore[no-any-return]

    async def publish(self, step: int) -> tuple[WeightVersion, float]:
        """The step's weights, ready to be fetched, and the seconds that took."""
        return (await self._all(f"weights of step {step}", self._deadlines.step_s, "publish", step))[0]  # type: ignore[no-any-return]

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        """All ranks' parts of a checkpoint, into a folder aside; the groups that `step` trained."""
        return (await self._all("the learner's checkpoint", self._deadlines.checkpoint_s, "save", str(aside), step))[0]  # type: ignore[no-any-return]

    async def load(self, folder: Path) -> None:
        """Continue from a whole checkpoint."""
        await self._all("the learner to load its checkpoint", self._deadlines.checkpoint_s, "load", str(folder))

    async def _all(self, what: str, deadline_s: float, method: str, *arguments: Any) -> list[Any]:
        return await self._gather(what, deadline_s, [rank.__getattr__(method).remote(*arguments) for rank in self._ranks])

    async def _gather(self, what: str, deadline_s: float, calls: Sequence[Any], return_exceptions: bool = False) -> list[Any]:
        try:
            async with asyncio.timeout(deadline_s):
                answers = await asyncio.gather(*calls, return_exceptions=return_exceptions)
        except TimeoutError as error:
            raise DeadlineExceeded(what, deadline_s) from error
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        return [answer.cause if isinstance(answer, ray.exceptions.RayTaskError) else answer for answer in answers]
