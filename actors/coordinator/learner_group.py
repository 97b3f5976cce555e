"""All learner ranks as one: every call goes to all of them at once, and has a deadline.

Collectives need all ranks, so a rank that dies or hangs takes the others with it: `LearnerLost` says so,
and the supervision starts the whole group again from the newest whole checkpoint.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import ObjectRef

from dynalign.actors.learner.protocol import LearnerRankActor
from dynalign.actors.remote import Call
from dynalign.actors.supervision.deaths import death, root_cause
from dynalign.configs.errors import (
    CheckpointError,
    DeadlineExceeded,
    DynalignError,
    LearnerLost,
    MissingGroups,
    UntrainableGroups,
    one_line,
)
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.learner.learner_state import Report
from dynalign.rollout.ledger.values import ScoredGroup
from dynalign.rollout.weights.version import WeightVersion

T = TypeVar("T")

_SETTLE_S = 10.0
"""Seconds for the other ranks' answers after the first error: the error of a collective often arrives
before the news of the death that caused it."""


class LearnerGroup:
    """ranks: their handles, rank 0 first. Every method raises LearnerLost when a rank has died, does not
    answer in time, or fails in a way that a new process may not."""

    def __init__(
        self, ranks: Sequence[LearnerRankActor], deadlines: DeadlineSettings, settle_s: float = _SETTLE_S
    ) -> None:
        self._ranks = tuple(ranks)
        self._deadlines = deadlines
        self._settle_s = settle_s

    async def start(self) -> None:
        """All ranks meet at rank 0's address and load the initial policy. Waits for ranks for which the
        cluster has no room yet."""
        room = "room in the cluster for all learner ranks"
        asked = [rank.rendezvous.remote() for rank in self._ranks]
        address, port = (await self._all(room, self._deadlines.place_s, asked))[0]
        starting = [rank.start.remote(address, port) for rank in self._ranks]
        await self._all("all learner ranks to start", self._deadlines.start_s, starting)

    async def step(
        self, step: int, groups: Sequence[ScoredGroup], handles: Sequence[object], present_fraction: float
    ) -> tuple[Report, tuple[int, ...]]:
        """One GRPO step in two phases: its report, and the ids of the groups that it trained. Asked twice
        for a step, it answers once, whatever the groups are the second time.

        Raises MissingGroups, before any rank has entered a collective, with the groups that a rank cannot
        read, and UntrainableGroups, likewise, with those whose records cannot be trained on.
        """
        cached = cast("Sequence[ObjectRef[bytes] | None]", handles)
        calls = [rank.prepare.remote(step, groups, cached, present_fraction) for rank in self._ranks]
        prepared = await self._answers(f"the learner to prepare step {step}", self._deadlines.step_s, calls)
        missing: set[int] = set()
        untrainable: dict[int, str] = {}
        others: list[object] = []
        for answer in prepared:
            if isinstance(answer, MissingGroups):
                missing |= set(answer.group_ids)
            elif isinstance(answer, UntrainableGroups):
                untrainable |= answer.causes
            else:
                others.append(answer)
        self._raise_first(others)
        if untrainable:
            raise UntrainableGroups(untrainable)
        if missing:
            raise MissingGroups(tuple(sorted(missing)))
        running = [rank.run.remote(step) for rank in self._ranks]
        return (await self._all(f"learner step {step}", self._deadlines.step_s, running))[0]

    async def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        """The step's weights, ready to be fetched, and the seconds that took; None if the learner no longer
        has them."""
        publishing = [rank.publish.remote(step) for rank in self._ranks]
        return (await self._all(f"weights of step {step}", self._deadlines.step_s, publishing))[0]

    async def save(self, aside: Path, step: int) -> tuple[int, ...]:
        """All ranks' parts of a checkpoint, into a folder aside; the groups that `step` trained."""
        saving = [rank.save.remote(str(aside), step) for rank in self._ranks]
        return (await self._all("the learner's checkpoint", self._deadlines.checkpoint_s, saving))[0]

    async def load(self, folder: Path, step: int) -> None:
        """Continue from the whole checkpoint of `step`. Raises CheckpointError if it holds another step's
        state."""
        loading = [rank.load.remote(str(folder)) for rank in self._ranks]
        loaded = await self._all("the learner to load its checkpoint", self._deadlines.checkpoint_s, loading)
        if set(loaded) != {step}:
            held = f"holds the learner's state of step {loaded[0]}"
            raise CheckpointError(f"{folder}: {held}; remove it, and the run goes on from the one before")

    async def trained_step(self) -> int:
        """The step trained last, once one that is under way is over."""
        asked = [rank.trained_step.remote() for rank in self._ranks]
        return (await self._all("the learner's step", self._deadlines.step_s, asked))[0]

    async def _all(self, what: str, deadline_s: float, calls: Sequence[Call[T]]) -> list[T]:
        answers = await self._answers(what, deadline_s, calls)
        self._raise_first(answers)
        return cast(list[T], answers)

    async def _answers(
        self, what: str, deadline_s: float, calls: Sequence[Call[T]]
    ) -> list[T | BaseException]:
        """Every rank's answer, or the error it raised as a value. Raises LearnerLost."""
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(call) for call in calls]
        _, pending = await asyncio.wait(tasks, timeout=deadline_s, return_when=asyncio.FIRST_EXCEPTION)
        if pending and any(task.done() and task.exception() for task in tasks):
            _, pending = await asyncio.wait(tasks, timeout=self._settle_s)
        errors = [task.exception() if task.done() else None for task in tasks]
        for rank, error in enumerate(errors):
            gone = None if error is None else death(error)
            if gone is not None:
                died = f"learner rank {rank} died while the run waited for {what}: {gone.detail}"
                raise LearnerLost(gone.cause, died)
        if pending and not any(errors):
            raise LearnerLost("hung", str(DeadlineExceeded(what, deadline_s)))
        return [_answer(task) for task in tasks]

    @staticmethod
    def _raise_first(answers: Sequence[object]) -> None:
        """Raises what a rank raised on purpose before any accident. An accident loses the learner where
        another rank is left waiting in a collective, or where a new process may do better."""
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        silent = [error for error in errors if isinstance(error, LearnerLost)]
        others = [error for error in errors if not isinstance(error, LearnerLost)]
        on_purpose = [error for error in others if isinstance(error, DynalignError)]
        if on_purpose:
            raise on_purpose[0]
        for lost in silent:
            raise LearnerLost(lost.how, "; ".join([str(lost), *map(one_line, others)]))
        for error in others:
            if isinstance(error, _MAY_PASS):
                raise LearnerLost("failed", f"a learner rank failed: {one_line(error)}") from error
            raise error


_MAY_PASS = (RuntimeError, MemoryError, SystemError)
"""Errors of a device, a driver or a library, such as CUDA's: a new process may be rid of them, and the
budget of restarts bounds how often that is tried. A storage's or a program's errors would come again."""


def _answer(task: "asyncio.Future[T]") -> T | BaseException:
    if not task.done():
        return LearnerLost("hung", "a learner rank gives no answer after another one failed")
    error = task.exception()
    return task.result() if error is None else root_cause(error)
