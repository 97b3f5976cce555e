"""The workers as the coordinator calls them: who answers, who sleeps, and whom nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Any, cast

import pytest
from ray import exceptions

from dynalign.actors.coordinator.worker_group import WorkerGroup
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.errors import DeadlineExceeded, EngineError
from tests.worlds.supervised_run import WORKER_STATS


class Method:
    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.remote = call


class Worker:
    """A worker whose engine takes `slow_s` to sleep or wake, and raises `errors` first, one per call."""

    def __init__(self, slow_s: float = 0.0, *errors: Exception, figures: Any = None) -> None:
        self.asleep = False
        self.stats_calls = 0
        self.slow_s = slow_s
        self.errors = list(errors)
        self.figures = figures
        self.sleep = Method(lambda: self._enter(True))
        self.wake = Method(lambda: self._enter(False))
        self.stats = Method(self._stats)

    async def _enter(self, asleep: bool) -> None:
        await asyncio.sleep(self.slow_s)
        if self.errors:
            raise self.errors.pop(0)
        self.asleep = asleep

    async def _stats(self) -> Any:
        self.stats_calls += 1
        if isinstance(self.figures, Exception):
            raise self.figures
        if self.figures is None:
            await asyncio.sleep(60)
        return self.figures


def handle(worker: Worker) -> RolloutWorkerHandle:
    return cast(RolloutWorkerHandle, worker)


def group(**workers: Worker) -> WorkerGroup:
    made = WorkerGroup(answer_s=0.2, retry_s=0.01)
    for name, worker in workers.items():
        made.add(name, handle(worker))
    return made


def tell(case: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(case(), 20))


def test_a_worker_that_joins_while_the_learner_has_the_device_sleeps_and_wakes_with_the_others() -> None:
    async def case() -> None:
        first, late = Worker(), Worker(slow_s=0.1)
        workers = group(first=first)
        await workers.sleep(1.0)
        workers.add("late", handle(late))
        await asyncio.sleep(0.02)  # it is on its way to sleep
        await workers.wake()
        assert (first.asleep, late.asleep) == (False, False)

    tell(case)


def test_the_learner_waits_until_a_slow_worker_has_given_the_device_up() -> None:
    async def case() -> None:
        slow = Worker(slow_s=0.5)  # longer than anybody waits for an answer
        await group(slow=slow).sleep(5.0)
        assert slow.asleep

    tell(case)


def test_a_worker_that_could_not_sleep_is_asked_again() -> None:
    async def case() -> None:
        worker = Worker(0.0, EngineError("busy"), exceptions.ActorUnavailableError("no route", None))
        await group(worker=worker).sleep(5.0)
        assert worker.asleep

    tell(case)


def test_a_worker_that_never_sleeps_is_waited_for_until_it_is_replaced() -> None:
    async def case() -> None:
        workers = group(hung=Worker(slow_s=60.0))
        sleeping = asyncio.ensure_future(workers.sleep(5.0))
        await asyncio.sleep(0.05)
        assert not sleeping.done()
        workers.remove("hung")
        successor = Worker()
        workers.add("successor", handle(successor))
        await sleeping
        assert successor.asleep

    tell(case)


def test_a_device_that_is_never_free_ends_the_wait_at_its_deadline_and_names_the_worker() -> None:
    async def case() -> None:
        with pytest.raises(DeadlineExceeded, match=r"waited 0\.1 s for hung to give the device up"):
            await group(hung=Worker(slow_s=60.0)).sleep(0.1)

    tell(case)


def test_a_worker_that_does_not_wake_holds_up_nobody_and_wakes_later() -> None:
    async def case() -> None:
        worker = Worker()
        workers = group(worker=worker)
        await workers.sleep(1.0)
        worker.slow_s = 0.4
        await workers.wake()
        assert worker.asleep
        await asyncio.sleep(0.5)
        assert not worker.asleep

    tell(case)


@pytest.mark.parametrize(
    "error",
    [exceptions.ActorDiedError(), exceptions.OutOfMemoryError("killed"), exceptions.NodeDiedError("dead")],
    ids=lambda error: type(error).__name__,
)
def test_figures_are_those_of_the_workers_that_answer(error: Exception) -> None:
    async def case() -> None:
        hung = Worker()
        workers = group(well=Worker(figures=WORKER_STATS), gone=Worker(figures=error), hung=hung)
        assert (await workers.stats()).by_name == {"well": asdict(WORKER_STATS)}
        await workers.stats()
        assert hung.stats_calls == 1, "one that gave none is not asked again"

    tell(case)


def test_a_worker_that_was_removed_before_it_was_added_holds_up_nobody() -> None:
    """The two calls came in the other order (random history 5529): nobody would ever remove it again."""

    async def case() -> None:
        workers = group(well=Worker(), drains=Worker(slow_s=60.0))
        workers.remove("drains")
        workers.remove("dead")
        workers.add("dead", handle(Worker(slow_s=60.0)))
        assert len(workers) == 1
        await workers.sleep(5.0)

    tell(case)
