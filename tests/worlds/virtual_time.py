"""An event loop whose clock jumps to the next timer, and processes in it that die or hang at any await.

A process is a context variable: whatever a call starts inherits it, so the loop knows for every callback
whose it is. Callbacks of a dead process are dropped: its coroutines are never resumed, so no `finally` of it
runs. Those of a hung one are kept until it wakes. Threads are events of the loop. Within a stretch of code
without an await, a process can die at every call that changes the file system.
"""

import asyncio
import selectors
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

NOBODY = Context()
"""The context of what happens in no process: the network, the operator, the world itself."""

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})
"""Audit events of calls that change the file system; `open` is looked at more closely."""


class Killed(BaseException):
    """Ends the code of a process that has died in it. No handler of the product catches it."""


class Process:
    """name: as in the run. kind: `worker`, `ledger`, `coordinator`, `learner` or `driver`."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.dead = False
        self.hung = False
        self.condemned = False
        """Whether it dies as soon as it wakes."""
        self.backlog: list[Callable[[], None]] = []
        self.on_death: list[Callable[[], None]] = []
        self._context = Context()
        self._context.run(_PROCESS.set, self)

    def context(self) -> Context:
        """A context for a call in this process."""
        return self._context.copy()

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function in this process."""
        return self.context().run(function, *arguments)

    def die(self) -> None:
        """From now on nothing of it runs."""
        self.dead = True
        for tell in self.on_death:
            tell()
        self.on_death = []

    def wake(self) -> None:
        """Goes on with everything that has waited."""
        self.hung = False
        backlog = self.backlog
        self.backlog = []
        for resume in backlog:
            resume()


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def process_here() -> Process | None:
    """The process whose code runs now."""
    return _PROCESS.get()


class Fate(Protocol):
    """What may happen to a process: it may set `dead` or `hung`."""

    def before_callback(self, process: Process) -> None: ...
    def before_change(self, process: Process) -> None: ...


class _Jump(selectors.SelectSelector):
    """Never waits. `passed_s`: the seconds that it was asked to wait."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing can happen any more: every task waits for another")
        self.passed_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`problems` are the errors that no task has taken: in callbacks, and in tasks that nobody waits for."""

    def __init__(self, random: Random, fate: Fate) -> None:
        self._jump = _Jump()
        self._over = False
        self._random = random
        self.fate = fate
        self.problems: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        """All of them: a task that nobody knows any more would be closed, and so run its `finally`."""
        super().__init__(self._jump)
        self.set_exception_handler(self._problem)

    def time(self) -> float:
        return self._jump.passed_s

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle: list[asyncio.Handle] = []
        handle.append(super().call_soon(self._in_process(callback, args, context, handle), context=context))
        return handle[0]

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        handle: list[asyncio.Handle] = []
        call = self._in_process(callback, args, context, handle)
        timer = super().call_at(when, call, context=context)
        handle.append(timer)
        return timer

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        self._tasks.append(task)
        return task

    def run_in_executor(self, _: Any, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """A thread: it begins a little later, and does its work at once."""

        async def job() -> T:
            await asyncio.sleep(self._random.choice((0.0, 0.001, 0.05)))
            return function(*args)

        return asyncio.shield(self.create_task(job()))  # a thread is not stopped by a cancellation

    def end(self) -> None:
        """Closes the loop with all that still waits in it."""
        self._over = True
        for task in self._tasks:
            coroutine: Any = task.get_coro()
            with suppress(RuntimeError, Killed):  # one that awaits while it is closed
                if not task.done():
                    coroutine.close()
            vars_of: Any = task
            vars_of._log_destroy_pending = False
        self.close()

    def _in_process(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
        handle: list[asyncio.Handle],
    ) -> Callable[[], None]:
        """handle: of the callback, which may be cancelled while its process hangs."""
        process = context.get(_PROCESS)

        def call() -> None:
            if self._over or handle[0].cancelled() or (process is not None and process.dead):
                return
            if process is not None:
                if not process.hung:
                    self.fate.before_callback(process)
                if process.dead:
                    return
                if process.hung:
                    process.backlog.append(again)
                    return
            with suppress(Killed):
                callback(*args)

        def again() -> None:
            asyncio.SelectorEventLoop.call_soon(self, call, context=context)

        return call

    def _problem(self, _: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        error = about.get("exception")
        if not self._over and "handle" in about and error is not None and not isinstance(error, Killed):
            self.problems.append("".join(traceback.format_exception(error)))


def changes_file_system(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event is a change of the file system."""
    if event == "open":
        mode = arguments[1]
        return isinstance(mode, str) and not {"w", "a", "x", "+"}.isdisjoint(mode)
    return event in _CHANGES


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" and event not in _CHANGES:
        return
    process = _PROCESS.get()
    if process is None or not changes_file_system(event, arguments):
        return
    if not process.dead:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.fate.before_change(process)
    if process.dead:
        raise Killed


_installed: list[bool] = []


def watch_file_system() -> None:
    """Has `Fate.before_change` asked from now on; outside processes nothing changes."""
    if not _installed:
        sys.addaudithook(_audit)
        _installed.append(True)
