"""The journal: every answer on disk, synced, before it is used; asked again, it is read and not paid for.

The functions take a connection, and run inside a transaction of `store.py`. The same question has the same
answers for ever: whoever wants others at temperature 1 asks for `n`, or with another seed.
"""

import hashlib
import json
import math
import sqlite3
from dataclasses import asdict, dataclass, replace

from dynalign.configs.errors import JournalError
from dynalign.endpoint.base import Answer, Answers, Question


@dataclass(frozen=True)
class Entry:
    """What is kept of a question with its answers.

    Example: `Entry(key, 1.7e9, "http://judge:8000/v1", "judge", question, answers, cost=0.0002)`.
    """

    key: str
    """`key_of` the question."""
    asked_s: float
    """Unix seconds."""
    address: str
    """Whom it was asked."""
    purpose: str
    """Who asked."""
    question: Question
    """What was asked."""
    answers: Answers
    """All answers so far; fewer than `n` while a server that gives one at a time is asked for the rest."""
    cost: float
    """Of all of them, in the currency of the prices."""


def canonical(question: Question) -> str:
    """A question as JSON, the same text for equal questions: sorted keys, ASCII, numbers as floats."""
    plain = asdict(replace(question, temperature=float(question.temperature)))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(question: Question, address: str) -> str:
    """SHA-256, in hexadecimal, of the canonical question and the address."""
    return hashlib.sha256(f"{address}\n{canonical(question)}".encode()).hexdigest()


def keep(db: sqlite3.Connection, entry: Entry) -> None:
    """Writes an entry, in the place of an earlier one with fewer answers."""
    answers = entry.answers
    db.execute(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.key,
            entry.asked_s,
            entry.address,
            entry.purpose,
            answers.model,
            canonical(entry.question),
            json.dumps([_plain(answer) for answer in answers.answers_N]),
            answers.prompt_tokens,
            answers.completion_tokens,
            int(answers.metered),
            entry.cost,
        ),
    )


def kept(db: sqlite3.Connection, key: str) -> tuple[Answers, float] | JournalError | None:
    """The answers under a key and their cost, None where there are none. A row that cannot be read is the
    error that its asker raises: other work of the same transaction goes on."""
    columns = "model, answers, prompt_tokens, completion_tokens, metered, cost"
    row = db.execute(f"SELECT {columns} FROM answers WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    model, answers, prompt_tokens, completion_tokens, metered, cost = row
    try:
        answers_N = tuple(_from_plain(answer) for answer in json.loads(answers))
    except (ValueError, TypeError, KeyError):
        path = db.execute("PRAGMA database_list").fetchone()[2]
        return JournalError(path, f"the answers under {key} cannot be read; delete that row to ask again")
    return Answers(answers_N, model, prompt_tokens, completion_tokens, bool(metered)), cost


def _plain(answer: Answer) -> dict[str, object]:
    """JSON has no infinity: null says that a choice was not reported."""
    logprobs = answer.choice_logprobs
    finite = None if logprobs is None else [each if math.isfinite(each) else None for each in logprobs]
    return {"text": answer.text, "finish_reason": answer.finish_reason, "choice_logprobs": finite}


def _from_plain(plain: dict[str, object]) -> Answer:
    """Raises KeyError, TypeError or ValueError for what `_plain` has not written."""
    text = plain["text"]
    reason = plain["finish_reason"]
    logprobs = plain["choice_logprobs"]
    if not isinstance(text, str) or reason not in ("stop", "length", "refused"):
        raise ValueError
    if logprobs is None:
        return Answer(text, reason)
    if not isinstance(logprobs, list):
        raise TypeError
    return Answer(text, reason, tuple(-math.inf if each is None else float(each) for each in logprobs))
