"""What a worker hears of versions, by reports and by its poll."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.worker.version_news import VersionNews
from dynalign.rollout.weights.version import WeightVersion


def version(lineage: int, step: int) -> WeightVersion:
    return WeightVersion(lineage, step, b"", (), 0)


class Ledger(LedgerClient):
    """Answers each poll with the next of `answers`, then not at all. `asked`: what the worker said it
    knew."""

    def __init__(self, *answers: WeightVersion | None) -> None:
        self.answers, self.asked = list(answers), list[tuple[int, int]]()

    async def ask(
        self, method: str, worker: str, known: tuple[int, int], *_: Any, wait_s: float
    ) -> WeightVersion | None:
        assert (method, worker) == ("wait_version", "rollout-0")
        self.asked.append(known)
        if not self.answers:
            await asyncio.sleep(60)
        return self.answers.pop(0)


def news_of(ledger: Ledger) -> VersionNews:
    return VersionNews("rollout-0", cast(LedgerLink, ledger))


def tell(story: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(5):
            await story

    asyncio.run(in_time())


def test_the_poll_brings_versions_one_after_the_other_and_says_what_is_known() -> None:
    async def story() -> None:
        ledger = Ledger(None, version(1, 4), None, version(2, 3))
        news = news_of(ledger)
        polling = asyncio.create_task(news.poll())
        while len(ledger.asked) < 5:
            await asyncio.sleep(0)
        polling.cancel()
        assert ledger.asked == [(0, 0), (0, 0), (1, 4), (1, 4), (2, 3)]
        assert await news.next((1, 4)) == version(2, 3)

    tell(story())


def test_a_report_s_answer_wakes_who_waits_and_old_news_does_not() -> None:
    async def story() -> None:
        news = news_of(Ledger())
        waiting = asyncio.create_task(news.next((0, 0)))
        for told in (None, version(1, 2), version(1, 1)):
            news.tell(told)
            await asyncio.sleep(0)
        assert await waiting == version(1, 2)
        later = asyncio.create_task(news.next((1, 2)))
        news.tell(version(1, 2))
        await asyncio.sleep(0.01)
        assert not later.done()
        news.tell(version(1, 3))
        assert await later == version(1, 3)

    tell(story())


def test_a_version_that_could_not_be_loaded_is_handed_out_again() -> None:
    async def story() -> None:
        news = news_of(Ledger())
        news.tell(version(1, 2))
        assert [await news.next((1, 1)) for _ in range(2)] == [version(1, 2)] * 2

    tell(story())
