"""Typed calls to Ray actors, and the few things that are asked of Ray about them.

An actor's handle is typed by a Protocol of `RemoteMethod`s, one per method that others call:

    class RolloutWorkerActor(Protocol):
        start: RemoteMethod[[], None]

    call = worker.start.remote()      # a Call[None]: await it, or ask `Calls`

Ray's own handles fit such a Protocol as they are, and so does a test's fake.
"""

import time
from collections.abc import Generator, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

import ray

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Protocol[T_co]):
    """A call under way: Ray's object reference."""

    def __await__(self) -> Generator[Any, None, T_co]: ...


class RemoteMethod(Protocol, Generic[P, T_co]):
    """A method of an actor, as its handle offers it."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Call[T_co]:
        """Starts the call and waits for nothing."""


class Calls(Protocol):
    """What supervision asks of Ray. The one that is used is `RayCalls`; tests bring their own, with fake
    actors."""

    def wait(self, calls: Sequence[Call[Any]], timeout_s: float) -> None:
        """Returns once any of `calls` has ended, after `timeout_s` at the latest. Without calls it waits
        that long."""

    def ended(self, call: Call[Any]) -> bool:
        """Whether the answer, or the error, is there."""

    def answer(self, call: Call[T]) -> T:
        """The answer of a call that has ended. Raises what the method raised, or RayError where the actor
        is gone."""

    def kill(self, actor: object) -> None:
        """Ends an actor with its children. One that is gone already is no error."""


class RayCalls:
    """`Calls` of a real cluster."""

    def wait(self, calls: Sequence[Call[Any]], timeout_s: float) -> None:
        if calls:
            ray.wait(list(calls), timeout=timeout_s)
        else:
            time.sleep(timeout_s)

    def ended(self, call: Call[Any]) -> bool:
        return bool(ray.wait([call], timeout=0)[0])

    def answer(self, call: Call[T]) -> T:
        return cast(T, ray.get(cast(Any, call)))

    def kill(self, actor: object) -> None:
        ray.kill(cast(Any, actor), no_restart=True)
