"""Asks again where there is no verdict: failed calls and unreadable answers are counted apart."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.grading import Grade, Grader, GradeStatus


class Again(NamedTuple):
    """How often one question is asked again: Again(failed=1, unparsed=0)."""

    failed: int
    """Its call has failed: the same question is repeated."""
    unparsed: int
    """Its answer could not be read: it is asked anew, with another seed."""


class _Answered(Protocol):
    @property
    def status(self) -> GradeStatus: ...


A = TypeVar("A", bound=_Answered)


async def persistently(ask: Callable[[int], Awaitable[A]], seed: int, again: Again) -> A:
    """What a question brings in the end. ask: asks it with a seed.

    Whether it is asked again depends on no score, so that no score is favoured."""
    failed = 0
    unparsed = 0
    found = await ask(seed)
    while True:
        if found.status == "unreachable" and failed < again.failed:
            failed += 1
        elif found.status == "unparsed" and unparsed < again.unparsed:
            unparsed += 1
        else:
            return found
        found = await ask(request_seed(seed, "again", unparsed) if unparsed else seed)


class PersistentGrader:
    """A grader that asks again."""

    def __init__(self, grader: Grader, again: Again) -> None:
        self.respondent = grader.respondent
        self._grader = grader
        self._again = again

    async def grade(self, message: str, seed: int, fresh: bool) -> Grade:
        async def ask(seed: int) -> Grade:
            return await self._grader.grade(message, seed, fresh)

        return await persistently(ask, seed, self._again)
