"""All learner ranks as one: every call goes to all of them at once, and has a deadline.

A rank that dies or hangs takes the others with it, because collectives need all of them: `LearnerLost` says so, and the supervision
starts the whole group again from the newest whole checkpoint.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from dynalign.configs.errors import DeadlineExceeded, DynalignError, LearnerLost, MissingGroups, one_line
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion

Report = dict[str, float | int | None]

_SETTLE_S = 10.0
"""Seconds for the other ranks' answers after the first error: the error of a collective often comes before the news of the death
that caused it."""


class LearnerGroup:
    """The ranks' handles, rank 0 first. Every method raises LearnerLost when a rank has died or does not answer in time."""

    def __init__(
        self, ranks: Sequence[Any], deadlines: DeadlineSettings, settle_s: float = _SETTLE_S
    ) -> None:
        self._ranks, self._deadlines, self._settle_s = tuple(ranks), deadlines, settle_s

    async def start(self) -> None:
        """All ranks meet at rank 0's address and load the initial policy. A rank for which the cluster has no room is waited for."""
        (address, port) = (
            await self._all(
                "room in the cluster for all learner ranks", self._deadlines.place_s, "rendezvous"
            )
        )[0]
        await self._all("all learner ranks to start", self._deadlines.start_s, "start", address, port)

    async def step(
        self, step: int, groups: Sequence[ScoredGroup], handles: Sequence[Any], present_fraction: float
    ) -> tuple[Report, tuple[int, ...]]:
        """One GRPO step in two phases: its report, and the ids of the groups that it trained. Asked twice for a step, it answers once,
        whatever the groups are the second time.

        Raises MissingGroups, before any rank has entered a collective, with the groups that some rank could not read.
        """
        calls = [rank.prepare.remote(step, groups, handles, present_fraction) for rank in self._ranks]
        prepared = await self._answers(f"the learner to prepare step {step}", self._deadlines.step_s, calls)
        missing = {
            group_id
            for answer in prepared
            if isinstance(answer, MissingGroups)
            for group_id in answer.group_ids
        }
        self._raise_first([answer for answer in prepared if not isinstance(answer, MissingGroups)])
        if missing:
            raise MissingGroups(tuple(sorted(missing)))
        return (await self._all(f"learner step {step}", self._deadlines.step_s, "run", step))[0]  # type: ignore[no-any-return]

    async def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        """The step's weights, ready to be fetched, and the seconds that took; None if the learner holds them no more."""
        return (await self._all(f"weights of step {step}", self._deadlines.step_s, "publish", step))[0]  # type: ignore[no-any-return]

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        """All ranks' parts of a checkpoint, into a folder aside; the groups that `step` trained."""
        return (
            await self._all(
                "the learner's checkpoint", self._deadlines.checkpoint_s, "save", str(aside), step
            )
        )[0]  # type: ignore[no-any-return]

    async def load(self, folder: Path) -> None:
        """Continue from a whole checkpoint."""
        await self._all(
            "the learner to load its checkpoint", self._deadlines.checkpoint_s, "load", str(folder)
        )

    async def _all(self, what: str, deadline_s: float, method: str, *arguments: Any) -> list[Any]:
        answers = await self._answers(
            what, deadline_s, [rank.__getattr__(method).remote(*arguments) for rank in self._ranks]
        )
        self._raise_first(answers)
        return answers

    async def _answers(self, what: str, deadline_s: float, calls: Sequence[Any]) -> list[Any]:
        """Every rank's answer, or the error it raised as a value. Raises LearnerLost."""
        tasks = [asyncio.ensure_future(call) for call in calls]
        _, pending = await asyncio.wait(tasks, timeout=deadline_s, return_when=asyncio.FIRST_EXCEPTION)
        if pending and any(task.done() and task.exception() for task in tasks):
            _, pending = await asyncio.wait(tasks, timeout=self._settle_s)
        errors = [task.exception() if task.done() else None for task in tasks]
        for rank, error in enumerate(errors):
            if isinstance(error, ray.exceptions.RayActorError):
                raise LearnerLost(
                    "died",
                    f"learner rank {rank} died while the run waited for {what}: {' '.join(str(error).split())}",
                )
        if pending and not any(errors):
            raise LearnerLost("hung", str(DeadlineExceeded(what, deadline_s)))
        return [_answer(task) for task in tasks]

    @staticmethod
    def _raise_first(answers: Sequence[Any]) -> None:
        """What was raised on purpose comes first. Any other error that leaves a rank silent has broken a collective off, in which that
        rank would wait for ever: the learner is lost."""
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        silent = [error for error in errors if isinstance(error, LearnerLost)]
        others = [error for error in errors if not isinstance(error, LearnerLost)]
        on_purpose = [error for error in others if isinstance(error, DynalignError)]
        for error in on_purpose or ([] if silent else others):
            raise error
        for lost in silent:
            raise LearnerLost(lost.how, "; ".join([str(lost), *map(one_line, others)]))


def _answer(task: "asyncio.Future[Any]") -> Any:
    if not task.done():
        return LearnerLost("hung", "a learner rank gives no answer after another one failed")
    error = task.exception()
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause
    return task.result() if error is None else error
