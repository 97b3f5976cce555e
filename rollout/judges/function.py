"""Verifiable rewards: a Python callable of the user's own scores each candidate (`judge.kind: function`)."""

import asyncio
import importlib
import logging
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import cast

from dynalign.configs.errors import Mistake, UserError, one_line
from dynalign.rollout.records import HIGHEST_SCORE, Verdict

logger = logging.getLogger(__name__)

RewardFunction = Callable[[str, str], float]
"""f(prompt, completion) -> score in 0..5."""


_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a user's function may raise without ending the worker. Anything else is no mistake in a reward."""


class FunctionJudge:
    """Calls the function in a thread, so that a slow one does not hold up the engine's event loop.

    A call that raises, or returns anything but a finite number from 0 to 5, is an unparsed verdict that says
    why: the candidate has no score, and a group with too few scores is withheld."""

    def __init__(self, function: RewardFunction, name: str) -> None:
        """name: `package.module:callable`, for error messages."""
        self._function = function
        self._name = name
        self._failed = False

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return [await self._verdict(prompt, text) for text in texts_G]

    async def _verdict(self, prompt: str, text: str) -> Verdict:
        try:
            score = await asyncio.to_thread(self._function, prompt, text)
        except _ERRORS as error:
            return self._unparsed(f"raised {one_line(error)}")
        if isinstance(score, bool) or not isinstance(score, Real):
            return self._unparsed(f"returned {score!r}")
        if not (math.isfinite(score) and 0.0 <= score <= HIGHEST_SCORE):
            return self._unparsed(f"returned {score!r}")
        return Verdict(float(score), "parsed" if text.strip() else "empty")

    def _unparsed(self, what: str) -> Verdict:
        cause = f"judge.function {self._name} {what}; return a finite number from 0 to 5"
        if not self._failed:  # the others are counted, and their candidates keep their own causes
            self._failed = True
            logger.warning(cause)
        return Verdict(None, "unparsed", text=cause)


def load_function(name: str) -> RewardFunction:
    """The callable named `package.module:callable`. Raises UserError when it cannot be imported or called."""
    module_name, _, attribute = name.partition(":")
    try:
        function = vars(importlib.import_module(module_name))[attribute]
    except (ImportError, KeyError, ValueError) as error:
        rule = f"cannot be imported ({error})"
        raise UserError([Mistake("judge.function", name, rule, "give package.module:callable")]) from error
    if not callable(function):
        remedy = "name a function f(prompt, completion) -> score"
        raise UserError([Mistake("judge.function", name, "is not callable", remedy)])
    return cast(RewardFunction, function)
