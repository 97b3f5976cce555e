"""Verifiable rewards: a Python callable of the user's own scores each candidate (`judge.kind: function`)."""

import asyncio
import importlib
import inspect
import logging
import math
import traceback
from collections.abc import Callable, Sequence
from itertools import dropwhile
from numbers import Real
from pathlib import Path
from typing import cast

from dynalign.configs.errors import LONGEST_VALUE, Mistake, UserError, one_line
from dynalign.configs.refusals import did_you_mean
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

PLACE = "judge.function"

_IMPORT_ERRORS = (*_ERRORS, EOFError, ImportError, StopIteration, SyntaxError, SystemExit)
"""What importing a module usually raises. `launch/reward_module.py` sees the rest, before a run."""


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
    """The callable named `package.module:callable`.

    Raises UserError when its module cannot be imported, or when it cannot be called with a prompt and a
    completion.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except _IMPORT_ERRORS as error:
        raise UserError([import_mistake(name, error)]) from error
    if (function := vars(module).get(attribute)) is None:
        close = did_you_mean(attribute, [known for known in vars(module) if not known.startswith("_")])
        remedy = f"did you mean {module_name}:{close}?" if close else "give package.module:callable"
        raise UserError([Mistake(PLACE, name, f"{module_name} has no {attribute}", remedy)])
    if wrong := _form(function):
        remedy = "name a function f(prompt, completion) -> score"
        raise UserError([Mistake(PLACE, name, wrong, remedy)])
    return cast(RewardFunction, function)


def import_mistake(name: str, error: BaseException) -> Mistake:
    """What importing the module of the function `name` raised, and in which of its lines."""
    module = name.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
        remedy = "run dynalign in the folder of that module, or add it to PYTHONPATH"
        return Mistake(PLACE, name, f"there is no module {error.name} here", remedy)
    # What importlib calls first, past its own frames, is the module itself.
    frames = dropwhile(
        lambda frame: frame.filename != importlib.__file__, traceback.extract_tb(error.__traceback__)
    )
    own = [
        f" ({Path(frame.filename).name}:{frame.lineno})"
        for frame in frames
        if frame.filename != importlib.__file__ and not frame.filename.startswith("<")
    ]
    # The text of a SyntaxError names its line.
    where = own[0] if own and not isinstance(error, SyntaxError) else ""
    said = one_line(error)[:LONGEST_VALUE].removesuffix(":")
    return Mistake(
        PLACE, name, f"its import raised {said}{where}", "mend that module: every worker imports it"
    )


def _form(function: object) -> str:
    """What keeps an object from being a reward function; empty for nothing."""
    if not callable(function):
        return "is not callable"
    if inspect.iscoroutinefunction(function):
        return "is a coroutine function, whose call gives no score"
    try:
        inspect.signature(function).bind("prompt", "completion")
    except TypeError as error:
        return f"cannot be called with a prompt and a completion ({error})"
    except ValueError:  # a function of C says nothing of its arguments
        return ""
    return ""
