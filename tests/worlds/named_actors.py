"""Actors with names, in this process and without Ray: found by name, they die, hang and come back at a test's
word."""

import asyncio
from types import SimpleNamespace
from typing import Any, Protocol

from ray.exceptions import ActorDiedError

from dynalign.actors.packed_calls import PackedCalls


class Mortal(Protocol):
    """An actor that can die."""

    dead: asyncio.Event


class FakeActorOfName(PackedCalls):
    """Base of a fake actor."""

    def __init__(self) -> None:
        self.dead = asyncio.Event()

    async def started(self) -> None:
        """It serves from the start."""


class NamedActors:
    """Whatever `named_actor.named` would find."""

    def __init__(self) -> None:
        self.by_name: dict[str, Mortal] = {}

    def find(self, name: str) -> Any:
        if name not in self.by_name:
            raise ValueError(f"Failed to look up actor {name}")
        return _Handle(self.by_name[name])

    def kill(self, name: str) -> None:
        """Ends an actor: calls under way, and later ones, say that it is gone."""
        self.by_name.pop(name).dead.set()


class _Handle:
    """As Ray's handle of an actor: every attribute is a method with a `remote`."""

    def __init__(self, actor: Mortal) -> None:
        self._actor = actor

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            dying = asyncio.ensure_future(self._actor.dead.wait())
            working = asyncio.ensure_future(self._actor.__getattribute__(method)(*arguments))
            try:
                await asyncio.wait([dying, working], return_when=asyncio.FIRST_COMPLETED)
                if dying.done():
                    raise ActorDiedError()
                return working.result()
            finally:
                dying.cancel()
                working.cancel()

        return SimpleNamespace(remote=call)
