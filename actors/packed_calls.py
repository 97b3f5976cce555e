"""Calls whose arguments and answers are one value of bytes each. A thousand workers need it; ten would not.

    call ──pack──► `packed` of the actor ──► its method ──► answer ──pack──► bytes

Ray serializes each argument by itself, and anything but bytes with a pickler written in Python. That is a
quarter of what a report costs worker and ledger. Values that hold a reference to an object or an actor go the
ordinary way, because Ray counts references as it serializes them.
"""

import io
import pickle
from typing import Any

import ray
from ray.actor import ActorHandle

from dynalign.configs.errors import DynalignError


class _HoldsReference(DynalignError):
    """The value to be packed holds an object reference or an actor handle."""


class _Pickler(pickle.Pickler):
    # Not called for numbers, strings and tuples, as persistent_id would be.
    def reducer_override(self, value: object) -> Any:
        if isinstance(value, ray.ObjectRef | ActorHandle):
            raise _HoldsReference
        return NotImplemented


def pack(value: object) -> bytes | None:
    """The value as bytes; None if it holds an object reference or an actor handle."""
    out = io.BytesIO()
    try:
        _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    except _HoldsReference:
        return None
    return out.getvalue()


async def call_packed(actor: Any, method: str, *arguments: Any) -> Any:
    """The answer of a method of an actor that is a `PackedCalls`. Raises what the method raises."""
    call = pack((method, arguments))
    if call is None:
        return await actor.__getattr__(method).remote(*arguments)
    answer = await actor.packed.remote(call)
    return pickle.loads(answer) if isinstance(answer, bytes) else answer


class PackedCalls:
    """Base of an actor whose methods can be called through `call_packed`."""

    async def packed(self, call: bytes) -> Any:
        """The answer of the packed call: as bytes, or as it is if it holds a reference."""
        method, arguments = pickle.loads(call)
        answer = await self.__getattribute__(method)(*arguments)
        packed_answer = pack(answer)
        return answer if packed_answer is None else packed_answer
