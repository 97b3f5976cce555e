"""One SQLite file for answers and bills: opened or refused by name, written by one thread, many at a time.

A commit syncs the disk, which takes milliseconds. So everything that waits when a commit ends goes into the
next one, and a hundred concurrent answers need a few commits. Several processes may use one file, on a disk
of one machine: SQLite's locks do not hold over network file systems.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dynalign.configs.errors import JournalError, Mistake, UserError

APPLICATION_ID = 0x44594E41
"""`DYNA`, in SQLite's header: tells this file from other SQLite files."""
FORMAT = 1
"""Raised with every change of the tables."""
NEW = (-1, -1)
"""In the place of application id and format, of a file without tables."""
BUSY_S = 60.0
"""Longest wait for another process's commit, in seconds. One takes milliseconds."""
DISK_S = 120.0
"""Longest wait for a commit, in seconds, `BUSY_S` included."""

TABLES = (
    """CREATE TABLE answers (
        key TEXT PRIMARY KEY,      -- SHA-256 of the canonical question and the address
        asked_s REAL NOT NULL,     -- Unix seconds
        address TEXT NOT NULL,
        purpose TEXT NOT NULL,     -- who asked: judge, prompts, evaluation
        model TEXT NOT NULL,       -- as the server names it
        question TEXT NOT NULL,    -- canonical JSON
        answers TEXT NOT NULL,     -- JSON list of text, finish_reason, choice_logprobs (null: not reported)
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        metered INTEGER NOT NULL,  -- 0: the server has not counted; the counts are upper bounds
        cost REAL NOT NULL         -- in the currency of the prices
    )""",
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL,     -- model and address
        key TEXT NOT NULL,
        purpose TEXT NOT NULL,
        sent_s REAL NOT NULL,      -- Unix seconds
        most_tokens INTEGER NOT NULL,
        most_cost REAL NOT NULL,
        tokens INTEGER NOT NULL,   -- spent: most_tokens until the bill is there
        cost REAL NOT NULL,
        state TEXT NOT NULL        -- in flight, billed, lost (perhaps billed), not billed
    )""",
    "CREATE TABLE spent (account TEXT PRIMARY KEY, tokens INTEGER NOT NULL, cost REAL NOT NULL)",
)

T = TypeVar("T")


@dataclass(frozen=True)
class _Piece:
    """A piece of work for the next commit."""

    work: Callable[[sqlite3.Connection], object]
    done: asyncio.Future[object]


class AnswerFile:
    """The file, open. Used from one event loop."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file is damaged, of another kind or format, or cannot be opened."""
        self.path = path
        self.commits = 0
        """Transactions since it was opened."""
        self._db = _opened(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._waiting: list[_Piece] = []
        self._draining: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, once it is committed and synced. It shares a transaction with other work,
        and must not raise.

        Raises JournalError if the disk or the file refuses, or if the disk hangs."""
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Piece(work, done))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        try:
            async with asyncio.timeout(DISK_S):
                return await done  # type: ignore[return-value]  # the result of this work
        except TimeoutError:
            raise JournalError(str(self.path), f"a commit did not end within {DISK_S:g} s") from None

    async def close(self) -> None:
        """Returns once everything that was asked for is on the disk, and the file is closed."""
        if self._draining is not None:
            await self._draining
        self._thread.shutdown()
        self._db.close()

    async def _drain(self) -> None:
        """Commits what waits, until nothing waits. The awaited thread's result or error goes to each."""
        while self._waiting:
            batch = self._waiting
            self._waiting = []
            committing = self._thread.submit(self._commit, [each.work for each in batch])
            await asyncio.wait([asyncio.wrap_future(committing)])
            self._hand_out(batch, committing)

    def _hand_out(self, batch: list[_Piece], committed: Future[list[object]]) -> None:
        error = committed.exception()
        for place, each in enumerate(batch):
            if each.done.done():
                continue  # its caller was cancelled, or has given up
            if error is None:
                each.done.set_result(committed.result()[place])
            elif isinstance(error, sqlite3.Error):
                each.done.set_exception(JournalError(str(self.path), f"SQLite says: {error}"))
            else:
                each.done.set_exception(error)

    def _commit(self, works: list[Callable[[sqlite3.Connection], object]]) -> list[object]:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            results = [work(self._db) for work in works]
        self.commits += 1
        return results


def _opened(path: Path) -> sqlite3.Connection:
    """Raises UserError, and then leaves the file as it is."""
    place = str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        mark = _mark(db)
        if mark in (NEW, (APPLICATION_ID, FORMAT)):
            _in_wal_mode(db)
            db.execute("PRAGMA synchronous=FULL")
            _make_tables(db)
            mark = _mark(db)
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        rule = f"is no readable file of answers (SQLite says: {error})"
        raise UserError([Mistake(place, None, rule, "name another file, or move this one away")]) from None
    except OSError as error:
        rule = f"cannot be opened ({error.strerror})"
        raise UserError([Mistake(place, None, rule, "name a file that can be written")]) from None
    if mark != (APPLICATION_ID, FORMAT):
        rule = f"is of format {mark[1]}, where this version reads format {FORMAT}"
        if mark[0] != APPLICATION_ID:
            rule = "is an SQLite file of something else"
        raise UserError([Mistake(place, None, rule, "name another file, or move this one away")])
    if damage != "ok":
        rule = f"is damaged ({damage})"
        raise UserError([Mistake(place, None, rule, "restore it from a copy, or move it away")])
    return db


def _mark(db: sqlite3.Connection) -> tuple[int, int]:
    """(application id, format) of the file; `NEW` for one without tables."""
    application_id: int = db.execute("PRAGMA application_id").fetchone()[0]
    user_version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if not application_id and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0, user_version
    return (application_id, user_version) if application_id else NEW


def _make_tables(db: sqlite3.Connection) -> None:
    """Unless another process has made them meanwhile."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        if _mark(db) == NEW:
            for table in TABLES:
                db.execute(table)
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={FORMAT}")


def _in_wal_mode(db: sqlite3.Connection) -> None:
    """Write-ahead logging. SQLite does not wait by itself where another process is just changing the mode."""
    until_s = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
        time.sleep(0.01)
