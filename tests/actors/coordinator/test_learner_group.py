"""All learner ranks as one: whose error is told, and when the learner is lost."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import ray

from dynalign.actors.coordinator.learner_group import LearnerGroup
from dynalign.configs.errors import (
    CheckpointError,
    LearnerLost,
    MissingGroups,
    StaleLineage,
    UntrainableGroups,
)
from dynalign.configs.sections.deadlines import DeadlineSettings

DEADLINES = DeadlineSettings(checkpoint_s=1.0, step_s=1.0)
SILENT = object()


class Rank:
    """A rank whose every call gives one answer, raises it, or gives none."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __getattr__(self, method: str) -> "Rank":
        return self

    def remote(self, *arguments: object) -> Awaitable[Any]:
        return self._answer()

    async def _answer(self) -> Any:
        if self.answer is SILENT:
            await asyncio.sleep(60)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def save(*answers: Any) -> tuple[int, ...]:
    async def ask() -> tuple[int, ...]:
        return await LearnerGroup([Rank(answer) for answer in answers], DEADLINES, settle_s=0.2).save(
            Path("aside"), 3
        )

    return asyncio.run(ask())


def test_the_first_rank_s_answer_is_the_group_s() -> None:
    assert save((4, 7), ()) == (4, 7)


def test_what_all_ranks_agree_to_raise_is_raised() -> None:
    with pytest.raises(CheckpointError, match="learner rank 1: OSError: no room"):
        save(*[CheckpointError("learner rank 1: OSError: no room")] * 2)


def test_an_error_raised_on_purpose_is_told_though_another_rank_is_silent() -> None:
    with pytest.raises(StaleLineage, match="lineage 1 was replaced by lineage 2"):
        save(SILENT, StaleLineage(1, 2))


def test_an_error_raised_on_purpose_comes_before_what_it_did_to_a_collective() -> None:
    with pytest.raises(StaleLineage):
        save(RuntimeError("Connection closed by peer"), StaleLineage(1, 2))


def test_an_accident_on_all_ranks_is_told_as_it_is() -> None:
    with pytest.raises(FloatingPointError):
        save(FloatingPointError("loss is nan"), FloatingPointError("loss is nan"))


def test_an_accident_that_leaves_a_rank_in_a_collective_loses_the_learner_with_its_cause() -> None:
    with pytest.raises(
        LearnerLost, match="gives no answer after another one failed; RuntimeError: out of memory"
    ) as lost:
        save(RuntimeError("out of memory"), SILENT)
    assert lost.value.how == "hung"


ECC = RuntimeError("CUDA error: ECC")


@pytest.mark.parametrize("answers", [(ECC,), (ECC, SILENT)])
def test_an_error_of_the_device_loses_the_learner_however_many_ranks_there_are(
    answers: tuple[Any, ...],
) -> None:
    with pytest.raises(LearnerLost, match="RuntimeError: CUDA error: ECC"):
        save(*answers)


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.OutOfMemoryError("killed"), ray.exceptions.NodeDiedError("dead")],
    ids=lambda error: type(error).__name__,
)
def test_a_rank_that_ray_calls_gone_in_other_words_loses_the_learner(error: BaseException) -> None:
    with pytest.raises(LearnerLost, match="learner rank 0 died while the run waited for"):
        save(error, (4, 7))


def test_a_dead_rank_loses_the_learner_whatever_the_others_raise() -> None:
    with pytest.raises(
        LearnerLost, match="learner rank 1 died while the run waited for the learner's checkpoint"
    ) as lost:
        save(RuntimeError("Connection closed by peer"), ray.exceptions.RayActorError())
    assert lost.value.how == "died"


def test_silence_beyond_the_deadline_loses_the_learner_and_says_what_was_waited_for() -> None:
    with pytest.raises(LearnerLost, match="waited 1 s for the learner's checkpoint") as lost:
        save((4, 7), SILENT)
    assert lost.value.how == "hung"


def test_groups_that_any_rank_cannot_train_on_are_named_with_their_causes() -> None:
    async def ask() -> None:
        ranks = [Rank(UntrainableGroups({3: "group 3: a score of 1e9"})), Rank(MissingGroups((5,)))]
        await LearnerGroup(ranks, DEADLINES, settle_s=0.2).step(3, [], [], 1.0)

    with pytest.raises(UntrainableGroups) as raised:
        asyncio.run(ask())
    assert raised.value.causes == {3: "group 3: a score of 1e9"}


def test_groups_that_any_rank_misses_are_missing() -> None:
    async def ask() -> None:
        ranks = [Rank(MissingGroups((7, 2))), Rank(None), Rank(MissingGroups((2, 5)))]
        await LearnerGroup(ranks, DEADLINES, settle_s=0.2).step(3, [], [], 1.0)

    with pytest.raises(MissingGroups) as missing:
        asyncio.run(ask())
    assert missing.value.group_ids == (2, 5, 7)


def test_a_checkpoint_that_holds_another_step_s_state_is_refused_by_its_folder() -> None:
    async def load(step: int) -> None:
        await LearnerGroup([Rank(2), Rank(2)], DEADLINES, settle_s=0.2).load(Path("step-000001"), step)

    asyncio.run(load(2))
    with pytest.raises(CheckpointError, match="step-000001: holds the learner's state of step 2"):
        asyncio.run(load(1))
