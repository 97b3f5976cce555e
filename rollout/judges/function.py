"""Verifiable rewards: a Python callable of the user's own scores candidates (`judge.kind: function`).

    f(prompt, completion) -> score              each candidate by itself
    f(prompt, completions) -> list of scores    the whole group at once; the second parameter's name decides

Both may be async. An async function always runs in the same event loop, so that it can keep a client.
"""

import asyncio
import importlib
import inspect
import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, cast

from dynalign.configs.errors import LONGEST_VALUE, DeadlineExceeded, Mistake, UserError, one_line
from dynalign.configs.refusals import did_you_mean
from dynalign.rollout.judges.respondents import Meter
from dynalign.rollout.judges.side_loop import SideLoop
from dynalign.rollout.records import HIGHEST_SCORE, ParseStatus, Verdict
from dynalign.run_folder.run_status import JudgeCost

logger = logging.getLogger(__name__)

RewardFunction = Callable[[str, Any], Any]
"""f(prompt, completion) -> score in 0..5, or f(prompt, completions) -> list of them; plain or async."""

GROUP_PARAMETER = "completions"
"""Name of the second parameter of a function that sees the whole group."""

_MOST_BLOCKED = 8
"""Calls of a plain function that may block for good, each in a thread, before no other is begun."""

PLACE = "judge.function"

_IMPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    SystemExit,
    TypeError,
    ValueError,
)
"""What importing a module usually raises. `launch/reward_module.py` sees the rest, before a run."""


class FunctionJudge:
    """Calls the function outside of the engine's event loop, for at most `deadline_s` seconds.

    A call that raises or does not end has failed (`unreachable`). One that returns anything but finite
    numbers from 0 to 5, one per candidate, cannot be read (`unparsed`). Both say why, and give no score."""

    asks_policy = False

    def __init__(self, function: RewardFunction, name: str, deadline_s: float = 60.0) -> None:
        """name: `package.module:callable`, for records and error messages."""
        self.name = name
        self.compares = sees_group(function)
        self._function = function
        self._deadline_s = deadline_s
        self._meter = Meter()
        self._is_async = inspect.iscoroutinefunction(function)
        self._free: list[SideLoop] = []
        self._blocked = 0
        self._told = False

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        if self.compares:
            found = await self._called(prompt, list(texts_G))
            return self._verdicts_of_group(found, texts_G)
        if self._is_async:
            found_G = await asyncio.gather(*(self._called(prompt, text) for text in texts_G))
        else:
            found_G = [await self._called(prompt, text) for text in texts_G]
        return [self._verdict(found, text) for found, text in zip(found_G, texts_G, strict=True)]

    def costs(self) -> Mapping[str, JudgeCost]:
        return {self.name: self._meter.cost}

    async def _called(self, prompt: str, argument: str | list[str]) -> object:
        """What the function returns; a verdict without a score where the call fails."""
        with self._meter.question():
            if self._blocked >= _MOST_BLOCKED:
                return self._failed(f"blocks in {self._blocked} calls; no other is begun")
            side = self._free.pop() if self._free else SideLoop(f"judge.function {self.name}")
            if self._is_async:
                self._free.append(side)  # one loop serves all calls
            try:
                result = await side.run(self._work(prompt, argument), self._deadline_s)
            except DeadlineExceeded:
                # A plain function goes on in its thread, which is not used again.
                self._blocked += not self._is_async
                return self._failed(f"has not returned after {self._deadline_s:g} s (judge.function_s)")
            if not self._is_async:
                self._free.append(side)
            if isinstance(result, BaseException):
                return self._failed(f"raised {one_line(result)}")
            return result

    async def _work(self, prompt: str, argument: str | list[str]) -> object:
        result = self._function(prompt, argument)
        return await result if inspect.isawaitable(result) else result

    def _verdicts_of_group(self, found: object, texts_G: Sequence[str]) -> list[Verdict]:
        if isinstance(found, Verdict):
            return [found] * len(texts_G)
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(texts_G):
            size = f"a list of {len(found)}" if isinstance(found, list) else repr(found)[:200]
            cause = f"returned {size} for {len(texts_G)} completions; return a list with a number for each"
            return [self._without_score("unparsed", cause)] * len(texts_G)
        return [self._verdict(score, text) for score, text in zip(found, texts_G, strict=True)]

    def _verdict(self, score: object, text: str) -> Verdict:
        if isinstance(score, Verdict):
            return score
        if isinstance(score, Real) and not isinstance(score, bool):
            value = float(score)
            if math.isfinite(value) and 0.0 <= value <= HIGHEST_SCORE:
                return Verdict(value, "parsed" if text.strip() else "empty")
        cause = f"returned {repr(score)[:200]}; return a finite number from 0 to 5"
        return self._without_score("unparsed", cause)

    def _failed(self, what: str) -> Verdict:
        self._meter.failed()
        return self._without_score("unreachable", what)

    def _without_score(self, status: ParseStatus, what: str) -> Verdict:
        cause = f"judge.function {self.name} {what}"
        if not self._told:  # the others are counted, and their candidates keep their own causes
            self._told = True
            logger.warning(cause)
        return Verdict(None, status, text=cause)


def sees_group(function: RewardFunction) -> bool:
    """Whether the second parameter of a function is called `completions`."""
    names = _parameters(function)
    return names is not None and names[1:2] == [GROUP_PARAMETER]


def _parameters(function: RewardFunction) -> list[str] | None:
    """The names of a callable's parameters; None where Python cannot say them."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


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
        remedy = "name a function f(prompt, completion) -> score, or f(prompt, completions) -> scores"
        raise UserError([Mistake(PLACE, name, wrong, remedy)])
    return cast(RewardFunction, function)


def import_mistake(name: str, error: BaseException) -> Mistake:
    """What importing the module of the function `name` raised, and in which of its lines."""
    module = name.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
        remedy = "run dynalign in the folder of that module, or add it to PYTHONPATH"
        return Mistake(PLACE, name, f"there is no module {error.name} here", remedy)
    frames = traceback.extract_tb(error.__traceback__)
    inside = max((index for index, frame in enumerate(frames) if frame.filename == __file__), default=-1)
    own = [
        f" ({Path(frame.filename).name}:{frame.lineno})"
        for frame in frames[inside + 1 :]
        if frame.filename != importlib.__file__ and not frame.filename.startswith("<")
    ]
    # The text of a SyntaxError names its line.
    where = own[0] if own and not isinstance(error, SyntaxError) else ""
    said = one_line(error)[:LONGEST_VALUE]
    return Mistake(
        PLACE, name, f"its import raised {said}{where}", "mend that module: every worker imports it"
    )


def _form(function: object) -> str:
    """What keeps an object from being a reward function; empty for nothing."""
    if not callable(function):
        return "is not callable"
    try:
        inspect.signature(function).bind("prompt", "completion")
    except TypeError as error:
        return f"cannot be called with a prompt and a completion ({error})"
    except ValueError:  # a function of C says nothing of its arguments
        return ""
    return ""
