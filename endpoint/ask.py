"""An endpoint as its users see it: journal, then pacing, then budget, then the client."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dynalign.configs.errors import DynalignError, EndpointRefused, JournalError
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint import journal
from dynalign.endpoint.base import Answers, Question
from dynalign.endpoint.budget import Budget, Wall, account_of, wall_of
from dynalign.endpoint.outcome import FailedCall, Sender
from dynalign.endpoint.pacing import Pace, Pacer
from dynalign.endpoint.store import AnswerFile
from dynalign.endpoint.tally import Tallies

NOTHING = Answers((), "", 0, 0)
"""What the journal holds of a question that was never answered."""
SEEDS = 2**31
"""A seed is smaller than this."""

Keep = Callable[[Answers, sqlite3.Connection], None]
"""Writes answers in a transaction."""


class _Shared:
    """A question that is being answered, for everybody who asks it meanwhile."""

    def __init__(self, task: asyncio.Task[tuple[Answers, bool]]) -> None:
        self.task = task
        self.waiting = 0


class Endpoint:
    """One model at one address, asked for several purposes. Used from one event loop."""

    def __init__(
        self,
        settings: EndpointSettings,
        file: AnswerFile,
        sender: Sender,
        clock: Callable[[], float] = time.monotonic,
        pacer: Pacer | None = None,
    ) -> None:
        """file: the journal and the budget. sender: the client, or a pool of engines. clock: of the account.
        pacer: None for one by the settings."""
        self.address = settings.address.rstrip("/")
        self.account = Tallies(clock)
        self.budget = Budget(file, account_of(settings), wall_of(settings))
        self.model = settings.model
        self.key_variable = settings.key_variable
        self.pace = pace_of(settings)
        self._file = file
        self.sender = sender
        self._pacer = pacer or Pacer(self.address, self.pace)
        self._running: dict[str, _Shared] = {}

    def asker(self, purpose: str) -> "EndpointAsker":
        """An `Asker` whose questions are accounted under `purpose`: judge, prompts, evaluation."""
        return EndpointAsker(self, purpose)

    async def close(self) -> None:
        """Ends what is being asked. What is in flight counts as spent."""
        running = [shared.task for shared in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def answers(self, question: Question, purpose: str) -> Answers:
        """As `Asker.ask`. Equal questions that are asked at the same time share one request; it ends early
        when nobody waits for it any more."""
        if question.model != self.model:
            cause = f"a question for the model {question.model!r}; this endpoint is set to {self.model!r}"
            raise EndpointRefused(self.address, cause)
        key = journal.key_of(question, self.address)
        tally = self.account.of(purpose)
        tally.asked += 1
        shared = self._running.get(key)
        is_first = shared is None
        if shared is None:
            shared = _Shared(asyncio.create_task(self._answered(key, question, purpose)))
            self._running[key] = shared
        shared.waiting += 1
        try:
            answers, was_kept = await asyncio.shield(shared.task)
        except DynalignError:
            tally.failed += 1
            raise
        finally:
            shared.waiting -= 1
            if self._running.get(key) is shared and (shared.task.done() or not shared.waiting):
                del self._running[key]
                shared.task.cancel()
        tally.from_journal += was_kept or not is_first
        tally.answered += is_first and not was_kept
        return answers

    async def try_once(
        self, question: Question, timeout_s: float, purpose: str, key: str = "", keep: Keep | None = None
    ) -> Answers | FailedCall:
        """One request: reserved on disk before it is sent, billed on disk before its outcome is returned.

        keep: what else goes to disk in the same transaction as the bill. Raises BudgetReached."""
        reserved = await self.budget.reserve(key, purpose, question)
        try:
            tally = self.account.of(purpose)
            tally.requests += 1
            outcome = await self.sender.send(question, timeout_s)

            def settle(db: sqlite3.Connection) -> float:
                if keep is not None and isinstance(outcome, Answers):
                    keep(outcome, db)
                return self.budget.bill(reserved, outcome, db)

            cost = await self._file.run(settle)
        finally:
            self.budget.leave()
        if isinstance(outcome, Answers):
            tally.billed(outcome, cost)
        return outcome

    async def _answered(self, key: str, question: Question, purpose: str) -> tuple[Answers, bool]:
        """The answers, and whether the journal held them all. What it does not hold is asked for."""
        found = await self._file.run(partial(journal.kept, key=key))
        if isinstance(found, JournalError):
            raise found
        answers, cost = (NOTHING, 0.0) if found is None else found
        if len(answers.answers_N) >= question.n:
            return answers, True
        self.account.began()
        entry = journal.Entry(key, time.time(), self.address, purpose, question, answers, cost)
        while len(entry.answers.answers_N) < question.n:
            part = await self._pacer.answers(partial(self._more, entry))
            entry = joined(entry, part, self.budget.wall)
        return entry.answers, False

    async def _more(self, entry: journal.Entry, timeout_s: float) -> Answers | FailedCall:
        """One request for the answers that an entry lacks. They are on disk before they are returned."""

        def keep(part: Answers, db: sqlite3.Connection) -> None:
            journal.keep(db, joined(entry, part, self.budget.wall))

        question = rest_of(entry.question, len(entry.answers.answers_N))
        return await self.try_once(question, timeout_s, entry.purpose, entry.key, keep)


@dataclass(frozen=True)
class EndpointAsker:
    """An endpoint, asked for one purpose: an `Asker`.

    Example: `await EndpointAsker(endpoint, "judge").ask(question)`.
    """

    endpoint: Endpoint
    """Whom it asks."""
    purpose: str
    """Under which its questions are accounted."""

    async def ask(self, question: Question) -> Answers:
        """As `Asker.ask`."""
        return await self.endpoint.answers(question, self.purpose)


def rest_of(question: Question, answered: int) -> Question:
    """The question for the answers that are not there yet. Its seed is another, or they would be the same."""
    if not answered:
        return question
    seed = None if question.seed is None else (question.seed + answered) % SEEDS
    return replace(question, n=question.n - answered, seed=seed)


def joined(entry: journal.Entry, part: Answers, wall: Wall) -> journal.Entry:
    """An entry with further answers, at most `n` in all."""
    before = entry.answers
    answers = Answers(
        (*before.answers_N, *part.answers_N)[: entry.question.n],
        part.model,
        before.prompt_tokens + part.prompt_tokens,
        before.completion_tokens + part.completion_tokens,
        before.metered and part.metered,
    )
    cost = entry.cost + wall.cost(part.prompt_tokens, part.completion_tokens)
    return replace(entry, answers=answers, cost=cost)


def pace_of(settings: EndpointSettings) -> Pace:
    """The pace that settings ask for."""
    return Pace(settings.concurrency, settings.deadline_s, settings.request_s, settings.retries)
