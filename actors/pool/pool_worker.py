"""One engine of a pool: it answers questions with the weights that it was started with.

    ask     waits for its turn (`max_sequences` at a time, `room.py`) ─► the engine, within `answer_s`
    reserve, ask_alone   the same for a question that was in an engine when it died: nothing else is inside
    serve   waits until `stop`, or until the engine fails or hangs: then it raises that, and the supervision
            replaces the actor; the question is asked again elsewhere (`pool.py`)

It leases nothing and takes no weight versions.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.util import metrics

from dynalign.actors import logs
from dynalign.actors.packed_calls import PackedCalls
from dynalign.actors.pool.protocol import EngineEnding, NotAlone, PoolWorkerStats
from dynalign.actors.pool.room import Room
from dynalign.actors.worker.protocol import WorkerProcess
from dynalign.configs.errors import DeadlineExceeded, EngineError
from dynalign.configs.sections.pool import PoolSettings
from dynalign.endpoint.base import Answers, Question
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.engine_asker import EngineAsker
from dynalign.rollout.weights.version import version_label

CALLS = 100_000
"""Calls that may be pending in the actor at one time. With one more, a sign of life would wait."""

_LABEL = version_label(0, 0)
"""The version of weights that no learner has made."""


@dataclass(frozen=True)
class PoolWorkerSpec:
    """The arguments of one engine: PoolWorkerSpec("judge-0", "quickstart", "info", PoolSettings(),
    "models/tiny", 2048, "2026-01-31", seed=0, cores=(2, 3))."""

    name: str
    """The actor's name, which no other of the run has."""
    run: str
    """The run's name, for logs and metrics."""
    log_level: str
    """Least severe lines that it logs."""
    settings: PoolSettings
    """How the engine is built."""
    model_folder: str
    """Path of the model's folder on the actor's node."""
    context_tokens: int
    """Longest question with its answer."""
    date: str
    """The day (ISO) that chat templates print."""
    seed: int
    """Of the engine; a question's own comes before it."""
    cores: tuple[int, ...] | None
    """Processor cores that it may use; None for all."""


@dataclass(frozen=True)
class _Logged:
    """What `logs.configure` asks for."""

    name: str
    log_level: str


async def start_engine(spec: PoolWorkerSpec, contexts: Contexts) -> Engine:
    """The engine that the settings name, with its model loaded."""
    if spec.settings.engine == "deterministic":
        from dynalign.rollout.engine.deterministic import DeterministicEngine

        size = len(contexts.tokenizer)
        return DeterministicEngine(range(size // 2, size), contexts.tokenizer.eos_token_id, _LABEL)
    from dynalign.rollout.engine.vllm import VllmEngine

    return await VllmEngine.start(
        spec.model_folder,
        spec.settings,
        spec.context_tokens,
        _LABEL,
        spec.seed,
        name=f"{spec.run}/{spec.name}",
        metrics=metrics,
    )


class PoolWorker(PackedCalls):
    """The actor. Call `start` once, then `serve`; `ask` may be called at any time and waits for `start`."""

    def __init__(
        self,
        spec: PoolWorkerSpec,
        start_engine: Callable[[PoolWorkerSpec, Contexts], Awaitable[Engine]] = start_engine,
    ) -> None:
        if spec.cores:
            os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
        self._spec = spec
        self._start_engine = start_engine
        self._room = Room(spec.settings.max_sequences)
        self._started = asyncio.Event()
        self._ending = asyncio.Event()
        self._error: EngineError | DeadlineExceeded | None = None
        self._in_flight = 0
        self._questions = 0
        self._completion_tokens = 0

    async def here(self) -> WorkerProcess:
        """Host, process id and when that process began (Unix seconds).

        An answer means that the cluster had room for the actor.
        """
        return os.uname().nodename, os.getpid(), psutil.Process().create_time()

    async def start(self) -> None:
        """Loads the model."""
        spec = self._spec
        logs.configure(_Logged(spec.run, spec.log_level), spec.name, lambda: "fixed")
        contexts = await asyncio.to_thread(load_contexts, Path(spec.model_folder), "", spec.date)
        self._engine = await self._start_engine(spec, contexts)
        self._asker = EngineAsker(Path(spec.model_folder).name, self._engine, contexts, spec.context_tokens)
        self._started.set()

    async def started(self) -> None:
        """Returns once it can answer. Raises EngineEnding once it is ending: the next one will answer."""
        await self._started.wait()
        if self._ending.is_set():
            raise EngineEnding(f"{self._spec.name} is ending")

    async def serve(self) -> None:
        """Returns after `stop`. Raises EngineError or DeadlineExceeded once the engine fails or hangs."""
        await self._ending.wait()
        try:
            if self._error is not None:
                raise self._error
        finally:
            await self._engine.close()

    async def stop(self) -> None:
        """Ends `serve`. Whoever still has a question here asks it elsewhere."""
        self._ending.set()

    async def stats(self) -> PoolWorkerStats:
        """Totals since the start, and what it is doing now."""
        return PoolWorkerStats(self._spec.name, self._in_flight, self._questions, self._completion_tokens)

    async def ask(self, question: Question) -> Answers:
        """The answers. Raises EndpointRefused for a question that the engine cannot take, EngineError or
        DeadlineExceeded where it fails or hangs: its actor ends then."""
        with self._counted():
            await self.started()
            async with self._room.shared():
                return await self._answered(question)

    async def reserve(self, ticket: str) -> None:
        """Returns once this engine works on nothing; nothing else begins before `ask_alone`. Raises
        EngineEnding once it is ending."""
        await self.started()
        await self._room.reserve(ticket)
        await self.started()

    async def ask_alone(self, ticket: str, question: Question) -> Answers:
        """As `ask`, in the place that `reserve` has kept. Raises NotAlone where it has lapsed."""
        with self._counted():
            async with self._room.alone(ticket) as is_alone:
                if not is_alone:
                    raise NotAlone(self._spec.name)
                return await self._answered(question)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._questions += 1

    async def _answered(self, question: Question) -> Answers:
        try:
            await self.started()  # it may have begun to end meanwhile
            answers = await self._ask_in_time(question)
            self._completion_tokens += answers.completion_tokens
            return answers
        except EngineEnding:
            raise
        except (EngineError, DeadlineExceeded) as error:
            self._error = self._error or error
            self._ending.set()
            raise

    async def _ask_in_time(self, question: Question) -> Answers:
        """An engine can hang while its actor answers every call, so each question has a deadline here."""
        answer_s = self._spec.settings.answer_s
        clock = asyncio.timeout(answer_s)
        try:
            async with clock:
                return await self._asker.ask(question)
        except TimeoutError as error:
            if clock.expired():
                hangs = f"an answer in {self._spec.name}: its engine hangs"
                raise DeadlineExceeded(hangs, answer_s) from error
            raise
