"""Calls whose arguments and answers are one value of bytes each.

Ray serializes every argument for itself, and anything but bytes by a pickler written in Python: of what a report costs worker and ledger
that is a quarter. What holds a reference to an object or an actor goes Ray's way, which counts them.

    call ──pack──► `packed` of the actor ──► its method ──► answer ──pack──► bytes     (unpacked, where there is a reference in it)
"""

import io
import pickle
from typing import Any

import ray
from ray.actor import ActorHandle

from dynalign.configs.errors import DynalignError


class _HoldsReference(DynalignError):
    """What is being packed holds a reference of Ray's."""


class _Pickler(pickle.Pickler):
    def reducer_override(
        self, value: object
    ) -> Any:  # not asked for numbers, strings and tuples, as persistent_id would be
        if isinstance(value, ray.ObjectRef | ActorHandle):
            raise _HoldsReference
        return NotImplemented


def pack(value: object) -> bytes | None:
    """None: there is a reference of Ray's in it."""
    out = io.BytesIO()
    try:
        _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    except _HoldsReference:
        return None
    return out.getvalue()


async def call_packed(actor: Any, method: str, *arguments: Any) -> Any:
    """The answer of a method of an actor that is a `PackedCalls`."""
    call = pack((method, arguments))
    if call is None:
        return await actor.__getattr__(method).remote(*arguments)
    answer = await actor.packed.remote(call)
    return pickle.loads(answer) if isinstance(answer, bytes) else answer


class PackedCalls:
    """An actor that can be asked so."""

    async def packed(self, call: bytes) -> Any:
        """The method's answer as bytes, or as it is."""
        method, arguments = pickle.loads(call)
        answer = await self.__getattribute__(method)(*arguments)
        packed_answer = pack(answer)
        return answer if packed_answer is None else packed_answer
