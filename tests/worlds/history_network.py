"""Actors in processes of virtual time, and the calls between them, as Ray makes them.

A call arrives after a while, in order for each caller, and its answer after another while. A dead actor's
calls end with ActorDiedError; those of a hung one do not end before it wakes.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from dynalign.actors.remote import Call
from tests.worlds.virtual_time import NOBODY, Killed, Process, process_here

Reply = asyncio.Future[Any]


class Network:
    """`Calls` of the supervision, and how long a message takes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sent: dict[tuple[str, str], float] = {}

    def later(self, way: tuple[str, str], deliver: Callable[..., object], *arguments: Any) -> None:
        """Delivers a message. Those on one way, (from, to), arrive in their order."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + self._random.choice((0.0005, 0.001, 0.003, 0.02))
        at_s = max(at_s, self._sent.get(way, 0.0))
        self._sent[way] = at_s
        loop.call_at(at_s, deliver, *arguments, context=NOBODY.copy())

    def wait(self, calls: Sequence[Call[Any]], timeout_s: float) -> None:
        """Nothing waits in virtual time."""

    def ended(self, call: Any) -> bool:
        return bool(call.done())

    def answer(self, call: Any) -> Any:
        return call.result()

    def kill(self, actor: object) -> None:
        """A process that hangs may wake once more before the signal reaches it."""
        assert isinstance(actor, ActorHandle)
        if actor.process.hung and self._random.random() < 0.7:
            actor.process.condemned = True
        else:
            actor.process.die()
        actor.gone()


class ActorHandle:
    """`handle.method.remote(…)` calls a method. create: makes the actor, in its process."""

    def __init__(self, network: Network, process: Process, create: Callable[[], Any]) -> None:
        self.process = process
        self.actor: Any = None
        with suppress(Killed):  # it dies in its constructor
            self.actor = process.run(create)
        self._network = network
        self._waiting: dict[Reply, tuple[str, str]] = {}
        self._gone = False
        process.on_death.append(self.gone)

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=partial(self._call, method))

    def gone(self) -> None:
        """The process is dead, or counts as dead."""
        self._gone = True
        for reply, way in list(self._waiting.items()):
            self._network.later(way, self._fail, reply)

    def _call(self, method: str, *arguments: Any) -> Reply:
        reply: Reply = asyncio.get_running_loop().create_future()
        caller = process_here()
        name = "nobody" if caller is None else caller.name
        self._waiting[reply] = (self.process.name, name)
        self._network.later((name, self.process.name), self._arrive, method, arguments, reply)
        return reply

    def _arrive(self, method: str, arguments: Sequence[Any], reply: Reply) -> None:
        if self.process.dead or self._gone:
            self._gone = True
            self._fail(reply)
            return
        loop = asyncio.get_running_loop()
        call = getattr(self.actor, method)(*arguments)
        task = loop.create_task(call, context=self.process.context())
        task.add_done_callback(partial(self._answer, reply), context=NOBODY.copy())

    def _answer(self, reply: Reply, task: "asyncio.Task[Any]") -> None:
        if not self.process.dead and not self._gone:
            self._network.later(self._waiting[reply], self._deliver, reply, task)

    def _deliver(self, reply: Reply, task: "asyncio.Task[Any]") -> None:
        self._waiting.pop(reply, None)
        if reply.done():
            return
        error = task.exception()
        if error is None:
            reply.set_result(task.result())
        else:
            assert isinstance(error, Exception)
            wrapped = RayTaskError(task.get_name(), "", error).as_instanceof_cause()  # type: ignore[no-untyped-call]
            reply.set_exception(wrapped)

    def _fail(self, reply: Reply) -> None:
        self._waiting.pop(reply, None)
        if not reply.done():
            reply.set_exception(ActorDiedError())
