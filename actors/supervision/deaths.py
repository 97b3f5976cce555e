"""The one place that decides whether an error means that an actor is gone.

Ray has many ways to say so: the actor's process died or is unreachable, its node died, the node's memory
monitor killed it, its answer was lost with the process that held it. They share no base class but
`RayError`, which is also the base of errors that the actor itself raised. Whoever calls an actor asks
`death` and replaces the actor, or leaves that to the supervision; nobody else lists Ray's errors.
"""

import re
from typing import NamedTuple

from ray import exceptions

from dynalign.configs.errors import one_line

GONE: tuple[type[BaseException], ...] = (
    exceptions.RayActorError,  # died, or does not answer on the network
    exceptions.WorkerCrashedError,
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,  # killed by the node's memory monitor; no RayActorError
    exceptions.ObjectLostError,  # the answer is lost, or the process that owned it
    exceptions.ActorPlacementGroupRemoved,
    exceptions.ActorUnschedulableError,  # the node that it was bound to is gone
    exceptions.ActorHandleNotFoundError,
)
"""Everything that Ray raises for a call to an actor that is gone, subclasses included."""

_OUT_OF_MEMORY = "running low on memory"
"""Part of Ray's message where the memory monitor killed an actor, also inside other errors."""

_LONGEST_DETAIL = 500
"""Characters of a detail; Ray adds pages of advice."""


class Death(NamedTuple):
    """Why an actor is gone, for events and messages. Example: `Death("memory", "Memory on the node (IP:
    …")`."""

    cause: str
    """`memory`: the node's memory monitor killed it. `hung`: it gave no answer in time. `died`: all else.
    The label of the death's metric and event."""

    detail: str
    """One line for people, with the node's figures where its memory ran out."""


def death(error: BaseException) -> Death | None:
    """What the error of a call says about the actor that was called: why it is gone, or None for an answer.

    An error that the actor's method raised is an answer, also if it is one of Ray's: an actor may pass on
    that another one has died. `root_cause` unwraps it.
    """
    if isinstance(error, exceptions.RayTaskError) or not isinstance(error, GONE):
        return None
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or _OUT_OF_MEMORY in text:
        return Death("memory", _memory_figures(text))
    return Death("died", one_line(error)[:_LONGEST_DETAIL])


def root_cause(error: BaseException) -> BaseException:
    """What was raised in an actor, without Ray's wrapping."""
    if isinstance(error, exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        return error.cause
    return error


def _memory_figures(text: str) -> str:
    """`the node's memory ran out: Memory on the node (IP: 10.0.0.7) was 61.2GB used / 64.0GB limit
    (0.96)`."""
    figures = re.search(r"Memory on the node[^\n]*", text)
    found = re.sub(r", ID: \w+", "", figures.group()) if figures else " ".join(text.split())
    return f"the node's memory ran out: {found}"[:_LONGEST_DETAIL]
