"""Engines with fixed weights for a command that trains nothing: started with Ray, watched, ended with it.

ray (RAY_ADDRESS's cluster, else one on this machine) ─► engines, supervised as those of a run
question ─► `Pool` ─► an engine; one that dies is replaced, until its budget of restarts is used up
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import ray

from dynalign.actors.named_actor import named
from dynalign.actors.pool.names import POOL, engine_names, ray_name
from dynalign.actors.pool.pool import Pool
from dynalign.actors.pool.pool_sender import PoolSender
from dynalign.actors.pool.pool_worker import PoolWorkerSpec
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.remote import Calls, RayCalls
from dynalign.actors.supervision.worker_pool import WorkerPool
from dynalign.configs.errors import DynalignError, RunFailed, one_line
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.launch.interrupts import kept_signals
from dynalign.launch.local_model import LocalModel
from dynalign.launch.models.folder import model_label
from dynalign.launch.ray_actors import pool_engine
from dynalign.launch.ray_cluster.connection import join_or_start
from dynalign.run_folder.events import EventLog

T = TypeVar("T")
OBJECT_STORE_GIB = 0.25
"""Questions and answers are small."""
LOOK_S = 0.5
"""Seconds from one look at the engines to the next."""

Spawn = Callable[[PoolWorkerSpec, str], PoolWorkerHandle]
"""Creates an engine, which callers find under a name."""


def spawn_on_ray(spec: PoolWorkerSpec, name: str) -> PoolWorkerHandle:
    """On a GPU where the cluster has one."""
    return pool_engine(spec, name, "gpu" if ray.cluster_resources().get("GPU", 0) else "cpu")  # type: ignore[no-untyped-call]


@asynccontextmanager
async def ray_for(models: Collection[LocalModel]) -> AsyncIterator[None]:
    """Ray, joined or started, with room for the engines of these models; ended afterwards.

    Raises UserError for a cluster that cannot be joined, RunFailed where Ray does not start."""
    cores = sum(model.settings.engines * model.settings.engine_threads for model in models)
    with kept_signals():
        join_or_start(cores, OBJECT_STORE_GIB)
    try:
        yield
    finally:
        ray.shutdown()


@asynccontextmanager
async def open_local_pool(
    model: LocalModel,
    spawn: Spawn = spawn_on_ray,
    calls: Calls | None = None,
    find: Callable[[str], Any] = named,
    clock: Callable[[], float] = time.monotonic,
    look_s: float = LOOK_S,
) -> AsyncIterator[PoolSender]:
    """The engines of one model, the first of which serves. Those of several commands on one cluster have
    different names. spawn, calls, find: Ray's. clock: the supervision's, seconds.

    Raises RunFailed with the cause when no engine can be started."""
    engines = _Engines(model, spawn, calls or RayCalls(), clock)
    settings = model.settings
    deadline_s = settings.answer_s + DeadlineSettings().start_s
    pool = Pool(model.place, engines.names, deadline_s, SupervisionSettings().poison_attempts, find)
    count = "an engine" if settings.engines == 1 else f"{settings.engines} engines"
    most_s = DeadlineSettings().start_s
    click.echo(f"{model_label(model.folder)}: starting {count}; it may take up to {most_s:.0f} s", err=True)
    serving = asyncio.create_task(engines.serve(look_s))
    try:
        either: list[asyncio.Future[Any]] = [engines.first_serves, engines.given_up]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if engines.given_up.done():
            raise RunFailed(f"{model.place}: {engines.given_up.result()}")
        yield PoolSender(pool, engines.given_up)
    finally:
        engines.end()
        await serving


class _Engines:
    """Supervises the engines of one model: the owner of a `WorkerPool`, which looks in a thread, since Ray
    blocks. `first_serves`: ends when an engine does. `given_up`: why there will be none."""

    def __init__(self, model: LocalModel, spawn: Spawn, calls: Calls, clock: Callable[[], float]) -> None:
        self._model = model
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._command = f"asked-{secrets.token_hex(4)}"
        self._ends: asyncio.Future[None] = self._loop.create_future()
        self.first_serves: asyncio.Future[None] = self._loop.create_future()
        self.given_up: asyncio.Future[str] = self._loop.create_future()
        self._seats: WorkerPool[PoolWorkerHandle] = WorkerPool(
            model.settings.engines,
            DeadlineSettings(),
            SupervisionSettings(),
            self._create,
            self,
            EventLog(None),
            calls,
            clock,
            name=POOL,
            kind="engine",
        )

    @property
    def names(self) -> Sequence[str]:
        """Of the engines, in Ray."""
        return engine_names(self._command, self._model.settings.engines)

    async def serve(self, look_s: float) -> None:
        """Creates and replaces engines until `end`, then ends all of them. look_s: seconds between looks."""
        try:
            while not self._ends.done() and not self.given_up.done():
                await asyncio.to_thread(self._seats.look)
                either: list[asyncio.Future[Any]] = [self._ends, self.given_up]
                await asyncio.wait(either, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
        except (DynalignError, ray.exceptions.RayError) as error:
            self.fail(one_line(error))
        finally:
            await asyncio.to_thread(self._seats.clear)

    def end(self) -> None:
        """Lets `serve` end."""
        if not self._ends.done():
            self._ends.set_result(None)

    # -- what the seats call, in their thread: whoever asks finds the engines by name

    def joined(self, worker: str, actor: PoolWorkerHandle) -> None:
        """An engine is ready."""
        self._loop.call_soon_threadsafe(_settle, self.first_serves, None)

    def leaving(self, worker: str) -> None:
        """Engines are not scaled down."""

    def left(self, worker: str, died: bool) -> None:
        """What it was asked is asked again."""

    def fail(self, cause: str) -> None:
        """No engine is created any more."""
        self._loop.call_soon_threadsafe(_settle, self.given_up, cause)

    def _create(self, seat: str, worker: str) -> PoolWorkerHandle:
        model = self._model
        spec = PoolWorkerSpec(
            worker,
            self._command,
            "warning",
            model.settings,
            str(model.folder),
            model.context_tokens,
            model.date,
            model.seed,
            None,
        )
        return self._spawn(spec, ray_name(self._command, seat))


def _settle(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)
