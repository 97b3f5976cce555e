"""Making a set: as many items at once as keep the models busy, each asked for until it has its fate.

    Board.begin ─► item ─► question ─► Asker ─► answer ─► item … ─► Board.ended ─► Board.begin
                    ▲__________________________________│

One task carries one item. A task waits for its asker alone, whose deadline bounds the wait. The loop waits
for the first task that ends, or for `stop`; then it begins as many items as there is room for. It ends when
nothing is left to begin, at a wall of the budget, after `FAILURES_IN_A_ROW` questions without an answer, or
on `stop`. What was answered is in the journal, so the same command goes on from there.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dynalign.configs.errors import EndpointError
from dynalign.dataset.agent_texts import Agent
from dynalign.dataset.board import Board
from dynalign.dataset.item_steps import answered, failed, next_agent
from dynalign.dataset.items import PromptItem
from dynalign.endpoint.base import Asker

FAILURES_IN_A_ROW = 20
"""So many questions in a row without an answer mean that the next ones will have none either."""


class AgentModel(NamedTuple):
    """Whom an agent asks: AgentModel(endpoint.asker("writer"), "gpt-oss-20b")."""

    asker: Asker
    """Whoever carries the questions."""
    model: str
    """The name under which the model is served."""


@dataclass
class MakingEnd:
    """Why the making ends before all places are filled. Set once, by whoever finds it first.

    Example: `MakingEnd("budget_reached", "the budget is reached: …")`.
    """

    reason: str = ""
    """`budget_reached`, `stopped` or `interrupted`; empty as long as it goes on."""
    detail: str = ""
    """A sentence."""
    failures: int = field(default=0)
    """Questions without an answer since the last answer."""

    def because(self, reason: str, detail: str) -> None:
        """Ends it, unless it has ended."""
        if not self.reason:
            self.reason = reason
            self.detail = detail


async def make_set(
    board: Board,
    models: Mapping[Agent, AgentModel],
    at_once: int,
    stop: asyncio.Event,
    moved: Callable[[], None] = lambda: None,
) -> MakingEnd:
    """Fills the board. Returns why it ended early; an empty reason if it did not.

    at_once: most items that are asked for at the same time. stop: set by whoever interrupts; the items in
    work fail as `interrupted`. moved: called whenever an item has moved. Raises what an asker raises besides
    EndpointError, such as JournalError."""
    end = MakingEnd()
    tasks: set[asyncio.Task[PromptItem]] = set()
    stopped = asyncio.create_task(stop.wait())
    try:
        while True:
            while len(tasks) < at_once and not end.reason and (item := board.begin()) is not None:
                tasks.add(asyncio.create_task(_carried(item, board, models, end, moved)))
            if not tasks:
                break
            await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                end.because("interrupted", "it was interrupted")
                break
            for task in [each for each in tasks if each.done()]:
                tasks.discard(task)
                board.ended(task.result())
            moved()
    finally:
        stopped.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
    board.close(end.reason or "stopped")
    moved()
    return end


async def _carried(
    item: PromptItem,
    board: Board,
    models: Mapping[Agent, AgentModel],
    end: MakingEnd,
    moved: Callable[[], None],
) -> PromptItem:
    """An item, asked for until it has its fate."""
    while (sent := next_agent(item, board.plan)) is not None:
        board.at[item.key] = sent.agent
        moved()
        question = board.plan.question(sent.agent, item, sent.feedback)
        try:
            answers = await models[sent.agent].asker.ask(question)
        except EndpointError as error:
            item = failed(item, error)
            _note_failure(end, item, error)
            continue
        end.failures = 0
        item = answered(item, sent.agent, answers.answers_N[0], board.plan)
    return item


def _note_failure(end: MakingEnd, item: PromptItem, error: EndpointError) -> None:
    if item.reason == "budget_reached":
        end.because("budget_reached", str(error))
        return
    end.failures += 1
    if end.failures >= FAILURES_IN_A_ROW:
        end.because("stopped", f"{end.failures} questions in a row were not answered; the last one: {error}")
