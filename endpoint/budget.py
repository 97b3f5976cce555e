"""The budget: tokens and money as a wall, over all workers and processes that share one file.

Before a request is sent, the most that it can cost is reserved on disk; its bill replaces that. What is in
flight when a process dies stays reserved, and so counts as spent: a server may have billed it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from dynalign.configs.errors import BudgetReached
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.endpoint.base import Answers, Question
from dynalign.endpoint.outcome import FailedCall, most_completion_tokens, most_prompt_tokens
from dynalign.endpoint.store import AnswerFile

T = TypeVar("T")


@dataclass(frozen=True)
class Wall:
    """What may be spent, and what a token costs.

    Example: `Wall(tokens=2_000_000, money=5.0, input_price=0.15, output_price=0.6)`.
    """

    tokens: int | None = None
    """Tokens read and written, together; None: no limit."""
    money: float | None = None
    """In the currency of the prices; None: no limit."""
    input_price: float = 0.0
    """Of a million tokens that are read."""
    output_price: float = 0.0
    """Of a million tokens that are written."""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """In the currency of the prices."""
        return (prompt_tokens * self.input_price + completion_tokens * self.output_price) / 1e6


@dataclass(frozen=True)
class Amount:
    """Tokens, and the money for them.

    Example: `Amount(tokens=1_200, cost=0.0004)`.
    """

    tokens: int
    """Read and written."""
    cost: float
    """In the currency of the prices."""


@dataclass(frozen=True)
class Reserved:
    """A request that may be sent.

    Example: `Reserved(id=17, most=Amount(900, 0.0003))`.
    """

    id: int
    """Its row in the table `requests`."""
    most: Amount
    """What it can cost."""


def most(question: Question, wall: Wall) -> Amount:
    """The most that one request can cost."""
    read = most_prompt_tokens(question)
    written = most_completion_tokens(question)
    return Amount(read + written, wall.cost(read, written))


class Budget:
    """The wall of one endpoint. The amounts are in the file, the limits in the settings of whoever asks."""

    def __init__(self, file: AnswerFile, account: str, wall: Wall) -> None:
        """account: model and address; what processes that share the wall have in common."""
        self._file = file
        self._account = account
        self.wall = wall
        self._in_flight = 0
        self._next_bill = asyncio.Event()

    async def spent(self) -> Amount:
        """By all processes, reservations included."""
        return await self._file.run(partial(spent, account=self._account))

    async def reserve(self, key: str, purpose: str, question: Question) -> Reserved:
        """Room for one request, on disk. Where there is none but requests of this process are in flight, it
        waits for their bills, which are smaller than what is reserved.

        Raises BudgetReached."""
        needed = most(question, self.wall)
        while True:
            # Taken before the disk is asked: a bill that comes in meanwhile must not be missed.
            bill = self._next_bill
            row = partial(
                reserve, account=self._account, key=key, purpose=purpose, needed=needed, wall=self.wall
            )
            found = await self._file.run(row)
            if isinstance(found, Reserved):
                self._in_flight += 1
                return found
            if not self._in_flight and not bill.is_set():
                raise BudgetReached(self._account, _reached(found, needed, self.wall))
            await bill.wait()

    def bill(self, reserved: Reserved, outcome: Answers | FailedCall, db: sqlite3.Connection) -> float:
        """Puts what a request has cost in the place of what was reserved; the cost. Inside a transaction."""
        if isinstance(outcome, Answers):
            cost = self.wall.cost(outcome.prompt_tokens, outcome.completion_tokens)
            actual = Amount(outcome.prompt_tokens + outcome.completion_tokens, cost)
            state = "billed"
        else:
            actual = reserved.most if outcome.billed else Amount(0, 0.0)
            state = "lost" if outcome.billed else "not billed"
        db.execute(
            "UPDATE spent SET tokens = tokens + ?, cost = cost + ? WHERE account = ?",
            (actual.tokens - reserved.most.tokens, actual.cost - reserved.most.cost, self._account),
        )
        db.execute(
            "UPDATE requests SET tokens = ?, cost = ?, state = ? WHERE id = ?",
            (actual.tokens, actual.cost, state, reserved.id),
        )
        return actual.cost

    def leave(self) -> None:
        """A request of this process is in flight no more. Without a bill before, it stays reserved."""
        self._in_flight -= 1
        self._next_bill.set()
        self._next_bill = asyncio.Event()


def spent(db: sqlite3.Connection, account: str) -> Amount:
    """Bills and reservations of all processes."""
    row = db.execute("SELECT tokens, cost FROM spent WHERE account = ?", (account,)).fetchone()
    return Amount(0, 0.0) if row is None else Amount(*row)


@dataclass(frozen=True)
class AccountTotal:
    """What one model at one address has cost.

    Example: `AccountTotal("gpt at http://judge:8000/v1", 12, Amount(900, 0.1))`.
    """

    account: str
    """Model and address."""
    requests: int
    """Requests that were sent, retries included."""
    spent: Amount
    """Bills, and the most that requests can have cost whose answers were lost."""


def totals_in(file: Path) -> tuple[AccountTotal, ...]:
    """The accounts of a file of answers that may be in use, without writing to it; none where there is no
    such file that can be read."""
    query = "SELECT account, count(*), sum(tokens), sum(cost) FROM requests GROUP BY account ORDER BY account"
    rows = _read(file, lambda db: db.execute(query).fetchall()) or []
    return tuple(AccountTotal(account, requests, Amount(*amounts)) for account, requests, *amounts in rows)


def spent_in(file: Path, account: str) -> Amount:
    """What one account of such a file has spent."""
    return _read(file, partial(spent, account=account)) or Amount(0, 0.0)


def _read(file: Path, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """The result of `work`; None without a file that can be read: `AnswerFile` says what is wrong with it."""
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as db:
            return work(db)
    except sqlite3.Error:
        return None


def wall_of(settings: EndpointSettings) -> Wall:
    """The budget that settings ask for."""
    return Wall(settings.budget_tokens, settings.budget_money, settings.input_price, settings.output_price)


def account_of(settings: EndpointSettings) -> str:
    """What processes that share a budget have in common."""
    return f"{settings.model} at {settings.address.rstrip('/')}"


def reserve(
    db: sqlite3.Connection, account: str, key: str, purpose: str, needed: Amount, wall: Wall
) -> Reserved | Amount:
    """The reservation; or, where there is no room, what is spent."""
    before = spent(db, account)
    if not fits(before, needed, wall):
        return before
    db.execute(
        "INSERT INTO spent VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens, cost = cost + excluded.cost",
        (account, needed.tokens, needed.cost),
    )
    amounts = (needed.tokens, needed.cost, needed.tokens, needed.cost)
    row = db.execute(
        "INSERT INTO requests (account, key, purpose, sent_s, most_tokens, most_cost, tokens, cost, state) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'in flight')",
        (account, key, purpose, time.time(), *amounts),
    )
    return Reserved(int(row.lastrowid or 0), needed)


def fits(before: Amount, needed: Amount, wall: Wall) -> bool:
    """Whether a request may be sent."""
    tokens_fit = wall.tokens is None or before.tokens + needed.tokens <= wall.tokens
    return tokens_fit and (wall.money is None or before.cost + needed.cost <= wall.money)


def _reached(before: Amount, needed: Amount, wall: Wall) -> str:
    limits = []
    if wall.tokens is not None:
        after = before.tokens + needed.tokens
        limits.append(f"{before.tokens:,} of {wall.tokens:,} tokens (the next request needs {after:,})")
    if wall.money is not None:
        after_cost = before.cost + needed.cost
        limits.append(
            f"{before.cost:.6g} of {wall.money:g} in money (the next request needs {after_cost:.6g})"
        )
    return f"the budget is reached: {' and '.join(limits)} are spent or reserved; raise it to continue"
