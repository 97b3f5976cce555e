"""The methods of an engine of a pool, as supervision and callers call them, and what `stats` answers."""

from dataclasses import dataclass
from typing import Protocol

from dynalign.actors.remote import RemoteMethod
from dynalign.actors.worker.protocol import WorkerProcess
from dynalign.configs.errors import DynalignError, EngineError


class EngineEnding(EngineError):
    """The engine is ending, and did not have the question."""


class NotAlone(DynalignError):
    """The place that was reserved in an engine has lapsed; it is reserved again."""


@dataclass(frozen=True, slots=True)
class PoolWorkerStats:
    """What one engine has done since it started, and what it is doing now.

    PoolWorkerStats("judge-0", questions_in_flight=12, questions_total=900, completion_tokens_total=41_000)
    """

    name: str
    """The actor's name, which no other of the run has."""
    questions_in_flight: int
    """Questions that it works on, or that wait for their turn."""
    questions_total: int
    """Questions answered, refusals included."""
    completion_tokens_total: int
    """Tokens written."""


class PoolWorkerHandle(Protocol):
    """The handle of a `PoolWorker`, which says what each method does and raises. Callers ask by packed
    calls."""

    here: RemoteMethod[[], WorkerProcess]
    start: RemoteMethod[[], None]
    serve: RemoteMethod[[], None]
    stop: RemoteMethod[[], None]
    stats: RemoteMethod[[], PoolWorkerStats]
