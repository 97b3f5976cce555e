"""Verifiable rewards: a Python callable of the user's own scores each candidate (`judge.kind: function`)."""

import asyncio
import importlib
import math
from collections.abc import Callable, Sequence
from typing import cast

from dynalign.configs.errors import Mistake, UserError
from dynalign.rollout.records import HIGHEST_SCORE, Verdict

RewardFunction = Callable[[str, str], float]
"""f(prompt, completion) -> score in 0..5."""


class FunctionJudge:
    """Calls the function in a thread, so that a slow one does not hold up the engine's event loop.

    Raises UserError when the function returns anything but a finite number from 0 to 5."""

    def __init__(self, function: RewardFunction, name: str) -> None:
        """name: `package.module:callable`, for error messages."""
        self._function = function
        self._name = name

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return [
            self._verdict(text, await asyncio.to_thread(self._function, prompt, text)) for text in texts_G
        ]

    def _verdict(self, text: str, score: float) -> Verdict:
        if not (math.isfinite(score) and 0.0 <= score <= HIGHEST_SCORE):
            rule = f"returned {score!r}"
            raise UserError(
                [Mistake("judge.function", self._name, rule, "return a finite number from 0 to 5")]
            )
        return Verdict(float(score), "parsed" if text.strip() else "empty")


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
