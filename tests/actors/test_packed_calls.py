"""A packed call is the same call: arguments, answers, errors; and references of Ray's are left to Ray."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from dynalign.actors.ledger.ledger_spec import LedgerAnswer
from dynalign.actors.packed_calls import PackedCalls, call_packed, pack
from dynalign.configs.errors import StaleLineage
from dynalign.rollout.ledger.values import Delivered, Lease, ScoredGroup
from dynalign.run_folder.spool import SpoolEntry

LEASE = Lease("train", 7, 3, 0, 1, 1, 5, 60.0, "rollout-0")
GROUP = ScoredGroup(7, 1, 1, SpoolEntry("group", 100, "sum"), 5, 5)
REFERENCE = ray.ObjectRef(bytes(28))


class Ledger(PackedCalls):
    """Some methods as the ledger's."""

    async def report(self, worker: str, delivered: list[Delivered], leases: int) -> LedgerAnswer:
        return LedgerAnswer(("scored",) * len(delivered), (LEASE,) * leases, None)

    async def snapshot(self) -> bytes:
        return b"\x93state"

    async def cached(self) -> tuple[ray.ObjectRef[bytes], int]:
        return REFERENCE, 3

    async def refuses(self) -> None:
        raise StaleLineage(1, 2)


class Handle:
    """As Ray's handle of an actor: every attribute is a method with a `remote`."""

    def __init__(self, methods: list[str]) -> None:
        self._methods = methods

    def __getattr__(self, method: str) -> Any:
        self._methods.append(method)
        return SimpleNamespace(remote=Ledger().__getattribute__(method))


def asked(method: str, *arguments: Any) -> tuple[Any, list[str]]:
    """The answer, and which methods were called from outside."""
    methods: list[str] = []
    return asyncio.run(call_packed(Handle(methods), method, *arguments)), methods


def test_arguments_and_answer_arrive_as_they_were_sent() -> None:
    assert asked("report", "rollout-0", [Delivered(GROUP, None)], 2) == (
        LedgerAnswer(("scored",), (LEASE, LEASE), None),
        ["packed"],
    )


def test_an_answer_of_bytes_is_not_taken_for_a_packed_one() -> None:
    assert asked("snapshot") == (b"\x93state", ["packed"])


def test_a_reference_in_the_arguments_goes_rays_way() -> None:
    answer, methods = asked("report", "rollout-0", [Delivered(GROUP, REFERENCE)], 0)
    assert answer.outcomes == ("scored",)
    assert methods == ["report"]
    assert pack((1, [{"deep": (REFERENCE,)}])) is None


def test_a_reference_in_the_answer_goes_rays_way() -> None:
    assert asked("cached") == ((REFERENCE, 3), ["packed"])


def test_an_error_is_the_callers() -> None:
    with pytest.raises(StaleLineage):
        asked("refuses")
